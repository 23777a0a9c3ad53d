"""The deployment zip: rewritten to start fast and to be reproducible, and checked for its required content."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

REQUIRED = (
    "app.py",
    "chalice/app.py",
    "chalicelib/entry.py",
    "chalicelib/domain/model.py",
    "policies/policy.json",
    "policies/policy.stamp.json",
    "aws_lambda_powertools/__init__.py",
    "msgspec/__init__.py",
)
FORBIDDEN_ROOTS = frozenset(
    {"boto3", "botocore", "s3transfer", "jsonschema", "click", "rich", "moto", "sandbox", "tests"}
)
"""Lambda's runtime has boto3 and its dependencies; the others are only for people's machines."""

LARGEST_UNZIPPED = 250 * 1024 * 1024
"""Lambda's limit for the unzipped size of a function, in bytes."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can store


def write_anew(archive: Path) -> None:
    """Rewrite the zip: members sorted, times and modes fixed, every module compiled next to its source.

    Lambda unzips to a read-only folder, so a module without its compiled file is compiled at every cold start. The
    compiled file has the hash of its source, unchecked, because a zip's times are not reliable.
    """
    with zipfile.ZipFile(archive) as old:
        members = {name: old.read(name) for name in old.namelist() if not name.endswith(("/", ".pyc"))}
    members |= {compiled_name(name): compiled(name, text) for name, text in members.items() if name.endswith(".py")}
    fresh = archive.with_suffix(".tmp")
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, on every machine: the modes below are Unix modes
            info.external_attr = 0o100644 << 16
            new.writestr(info, members[name])
    os.replace(fresh, archive)


def compiled_name(name: str) -> str:
    """Return the name under which Python looks for a member's compiled file."""
    return importlib.util.cache_from_source(name, optimization="")


def compiled(name: str, text: bytes) -> bytes:
    """Return a module's source, compiled; its tracebacks name the member."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.py"), Path(folder, "source.pyc")
        source.write_bytes(text)
        py_compile.compile(
            str(source),
            str(target),
            dfile=name,
            doraise=True,
            optimize=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        return target.read_bytes()


def check(archive: Path) -> list[str]:
    """Return what is wrong with the zip: missing members, members that must not ship, its size. Empty if nothing."""
    with zipfile.ZipFile(archive) as opened:
        names = set(opened.namelist())
        size = sum(info.file_size for info in opened.infolist())
    problems = [f"{name} is missing" for name in REQUIRED if name not in names]
    roots = {PurePosixPath(name).parts[0] for name in names}
    problems += [f"{root} must not be in it" for root in sorted(roots & FORBIDDEN_ROOTS)]
    problems += [
        f"{name} is not for Lambda's platform"
        for name in sorted(names)
        if name.endswith((".so", ".dylib", ".pyd")) and "x86_64-linux-gnu" not in name
    ]
    if size > LARGEST_UNZIPPED:
        problems.append(f"it unzips to {size} bytes, but Lambda allows {LARGEST_UNZIPPED}")
    return problems
