"""The same package against the whole sandbox, for plausibility: seconds as a user would see them."""

from __future__ import annotations

import time
from pathlib import Path

import boto3

from sandbox.server import Sandbox

LONGEST_SECONDS = 60.0


def seconds_in_sandbox(package: Path) -> dict[str, float]:
    """Seconds from a user's switch to NONE until X-Ray answers KMS and ACTIVE: by a cold function, then a warm one.

    Raises TimeoutError where the guard does not put it right.
    """
    with Sandbox(package=package, settle_seconds=0.2, event_delay_seconds=0.0, schedules=False, warm=False) as aws:
        xray = boto3.client(
            "xray",
            endpoint_url=aws.url,
            region_name=aws.region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        _switch_off(xray)  # makes the key, so that both measured runs find it
        for function in aws.functions:
            function.restart(plain=function.plain)
        return {"cold": _switch_off(xray), "warm": _switch_off(xray)}


def _switch_off(xray: object) -> float:
    began = time.monotonic()
    xray.put_encryption_config(Type="NONE")  # type: ignore[attr-defined]
    while time.monotonic() - began < LONGEST_SECONDS:
        told = xray.get_encryption_config()["EncryptionConfig"]  # type: ignore[attr-defined]
        if (told["Type"], told["Status"]) == ("KMS", "ACTIVE"):
            time.sleep(0.5)  # the run's last transaction
            return time.monotonic() - began - 0.5
        time.sleep(0.02)
    raise TimeoutError(f"the guard did not put X-Ray's setting right within {LONGEST_SECONDS:.0f} seconds")
