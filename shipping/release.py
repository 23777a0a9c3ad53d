"""`python -m shipping.release` writes build/release: what a release consists of.

The wheel of the command line, the zip and the templates of stage prod, a bill of materials (CycloneDX), and the SHA-256
of each file. The same source gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tomllib
import uuid
from collections.abc import Iterable, Mapping
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shipping.__main__ import PROJECT, PackagingError, package, run, say

STAGE = "prod"
BILL = "sbom.cdx.json"
CHECKSUMS = "SHA256SUMS"
EPOCH_1980 = "315532800"
"""The earliest time that a zip, such as a wheel, can store."""

IN_THE_WHEEL = ("pyproject.toml", "README.md", "LICENSE", "chalicelib", "policies")
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", re.MULTILINE)
NAMESPACE = uuid.UUID("5a1dd9f1-7c2c-5be7-8f62-0e3c1c1a9d55")
"""Makes the bill's serial number from its content."""


def release(packaged: Path, to: Path, project: Path = PROJECT) -> None:
    """Write a release with the package in `packaged` to the folder `to`, anew. Raises PackagingError."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for path in sorted(packaged.iterdir()):
        shutil.copy2(path, to / path.name)
    wheel(to, project)
    (to / BILL).write_text(json.dumps(bill(project), indent=2) + "\n", "utf-8")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(to.iterdir())]
    (to / CHECKSUMS).write_text("".join(sums), "utf-8")


def wheel(to: Path, project: Path = PROJECT) -> Path:
    """Build the wheel of the command line from a copy, without network, and return its path. Raises PackagingError."""
    source = to / "src"
    for name in IN_THE_WHEEL:
        path = project / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.stamp.json"))
        else:
            source.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, source / name)
    options = ("--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-deps", "--no-index")
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(to), str(source)]
    run(command, to, {**os.environ, "SOURCE_DATE_EPOCH": EPOCH_1980})
    shutil.rmtree(source)
    (built,) = to.glob("*.whl")
    return built


def bill(project: Path = PROJECT) -> dict[str, Any]:
    """Return the bill of materials as CycloneDX 1.6: each library with its pinned version, and who needs it.

    The property `xray-guard:part-of` says whether the functions carry a library, the command line needs it, or both.
    """
    described = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    pins = pinned(project / "requirements-dev.txt")
    carried = {*pinned(project / "requirements.txt"), "chalice"}
    needed = with_all_that_they_need(described["dependencies"], pins)
    root = f"pkg:pypi/{described['name']}@{described['version']}"
    libraries = sorted(carried | set(needed))
    direct = carried | {_name(each) for each in described["dependencies"]}
    content = {
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": described["name"],
                "version": described["version"],
                "description": described["description"],
                "licenses": [{"license": {"id": described["license"]["text"]}}],
                "purl": root,
            }
        },
        "components": [
            {
                "type": "library",
                "bom-ref": _purl(name, pins),
                "name": name,
                "version": pins[name],
                "purl": _purl(name, pins),
                "properties": [
                    {"name": "xray-guard:part-of", "value": part}
                    for part, names in (("functions", carried), ("command line", set(needed)))
                    if name in names
                ],
            }
            for name in libraries
        ],
        "dependencies": [
            {"ref": root, "dependsOn": [_purl(name, pins) for name in sorted(direct)]},
            *(
                {"ref": _purl(name, pins), "dependsOn": [_purl(each, pins) for each in sorted(needed.get(name, ()))]}
                for name in libraries
            ),
        ],
    }
    serial = uuid.uuid5(NAMESPACE, json.dumps(content, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", **content}


def pinned(requirements: Path) -> dict[str, str]:
    """Return the version of each pinned library, by its canonical name."""
    return {canonicalize_name(name): version for name, version in PIN.findall(requirements.read_text("utf-8"))}


def with_all_that_they_need(names: Iterable[str], pins: Mapping[str, str]) -> dict[str, set[str]]:
    """Return these libraries and all that they need, each with what it needs itself. Raises PackagingError."""
    found: dict[str, set[str]] = {}
    waiting = [_name(each) for each in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in pins:
            raise PackagingError(
                f"{name} is not pinned in requirements-dev.txt: add it to the .in file and `make pins`"
            )
        wanted = [Requirement(text) for text in requires(name) or ()]
        here = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
        found[name] = {canonicalize_name(each.name) for each in here}
        waiting += found[name]
    return found


def _name(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def _purl(name: str, pins: Mapping[str, str]) -> str:
    return f"pkg:pypi/{name}@{pins[name]}"


def main() -> int:
    """Return 0 if the release was built, 1 if not."""
    to = PROJECT / "build" / "release"
    try:
        release(package(STAGE), to)
    except PackagingError as error:
        say(str(error))
        return 1
    say(f"{to.relative_to(PROJECT)}: {', '.join(sorted(path.name for path in to.iterdir()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
