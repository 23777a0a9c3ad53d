"""The places that the contract is held to: moto in the process, the sandbox's server, and by hand real AWS.

Real AWS takes part only where XRAY_GUARD_CONTRACT_REGION names a Region of an account made for tests: keys cost money,
and are left pending deletion.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws

import sandbox.additions  # noqa: F401 - its import is what adds
from sandbox.knobs import KNOBS
from sandbox.server import Sandbox
from tests.contract.places import Place

REAL_REGION = os.environ.get("XRAY_GUARD_CONTRACT_REGION")
PLACES = ["mock_aws", "server", *(["real"] if REAL_REGION else [])]


@pytest.fixture(scope="module")
def _server() -> Iterator[Sandbox]:
    with Sandbox(settle_seconds=0.1, schedules=False) as running:
        yield running


@pytest.fixture(params=PLACES)
def aws(request: pytest.FixtureRequest) -> Iterator[Place]:
    """One of the places, as new; real AWS with its setting put back afterwards."""
    if request.param == "mock_aws":
        KNOBS.reset()
        KNOBS.turn({"settle_seconds": 0.1})
        with mock_aws():
            yield Place("mock_aws", lambda service: boto3.client(service, "us-east-1"), 2.0)
        KNOBS.reset()
    elif request.param == "server":
        server: Sandbox = request.getfixturevalue("_server")
        server.reset()
        yield Place("server", server.client, 2.0)
    else:
        retries = Config(retries={"mode": "standard", "max_attempts": 5})
        place = Place("real", lambda service: boto3.client(service, REAL_REGION, config=retries), 900.0)
        former = place.xray.get_encryption_config()["EncryptionConfig"]
        try:
            yield place
        finally:
            put_back = {"KeyId": former["KeyId"]} if former["Type"] == "KMS" else {}
            place.xray.put_encryption_config(Type=former["Type"], **put_back)
            for key in place.keys:
                if place.state(key) != "PendingDeletion":
                    place.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
