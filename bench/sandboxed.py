"""Run the same package against the whole sandbox, for plausibility: seconds as a user would see them."""

from __future__ import annotations

import time
from pathlib import Path

import boto3

from sandbox.server import Sandbox

LONGEST_SECONDS = 60.0


def seconds_in_sandbox(package: Path) -> dict[str, float]:
    """Return the seconds from a user's change to NONE until X-Ray reports KMS and ACTIVE: cold function, then warm.

    Raises TimeoutError if the guard does not remediate the drift.
    """
    with Sandbox(package=package, settle_seconds=0.2, event_delay_seconds=0.0, schedules=False, warm=False) as aws:
        xray = boto3.client(
            "xray",
            endpoint_url=aws.url,
            region_name=aws.region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        _switch_off(xray)  # creates the key, so that both measured runs find it
        for function in aws.functions:
            function.restart(plain=function.plain)
        return {"cold": _switch_off(xray), "warm": _switch_off(xray)}


def _switch_off(xray: object) -> float:
    began = time.monotonic()
    xray.put_encryption_config(Type="NONE")  # type: ignore[attr-defined]
    while time.monotonic() - began < LONGEST_SECONDS:
        setting = xray.get_encryption_config()["EncryptionConfig"]  # type: ignore[attr-defined]
        if (setting["Type"], setting["Status"]) == ("KMS", "ACTIVE"):
            time.sleep(0.5)  # the run's last transaction
            return time.monotonic() - began - 0.5
        time.sleep(0.02)
    raise TimeoutError(f"the guard did not remediate X-Ray's setting within {LONGEST_SECONDS:.0f} seconds")
