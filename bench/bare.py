"""The baseline: a handler of a few lines that makes the same AWS calls with plain boto3, one after the other."""

import json
import os
from pathlib import Path
from typing import Any

import boto3

CALLS: list[tuple[str, str, dict[str, Any]]] = json.loads(Path(os.environ["BENCH_CALLS"]).read_bytes())
CLIENTS = {service: boto3.client(service) for service in dict.fromkeys(service for service, _, _ in CALLS)}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Make the calls and return their number."""
    for service, method, parameters in CALLS:
        getattr(CLIENTS[service], method)(**parameters)
    return {"calls": len(CALLS)}
