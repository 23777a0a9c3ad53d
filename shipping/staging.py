"""The copy that is packaged: what the functions need, and nothing that only people or pipelines use."""

from __future__ import annotations

import shutil
from pathlib import Path

SHIPPED = ("__init__.py", "entry.py", "wiring.py", "api", "auditlog", "aws", "domain", "loop")
"""What the functions load of `chalicelib`. What only people use would bring libraries along, and stays at home."""

POLICY_FILES = ("policy.json",)
"""The functions read the stamped policy; their own rights and the schema are no business of theirs."""


def stage_copy(project: Path, source: Path) -> None:
    """Lay out `source` as Chalice wants a project, out of the project's own files.

    Chalice takes along `app.py`, `chalicelib` and what lies in `vendor`, following links there; so links in it bring
    the policy and its stamp, which is written after this.
    """
    source.mkdir(parents=True)
    for name in ("app.py", "requirements.txt"):
        shutil.copy2(project / name, source / name)
    for name in SHIPPED:
        _copy(project / "chalicelib" / name, source / "chalicelib" / name)
    shutil.copytree(project / ".chalice", source / ".chalice", ignore=shutil.ignore_patterns("deployments", "deployed"))
    shutil.copytree(project / "policies", source / "policies", ignore=shutil.ignore_patterns("*.stamp.json"))
    (source / "vendor" / "policies").mkdir(parents=True)
    for name in (*POLICY_FILES, "policy.stamp.json"):
        (source / "vendor" / "policies" / name).symlink_to(Path("../../policies") / name)


def _copy(what: Path, to: Path) -> None:
    if what.is_dir():
        shutil.copytree(what, to, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    else:
        to.parent.mkdir(exist_ok=True)
        shutil.copy2(what, to)
