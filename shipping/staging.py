"""Copy what is packaged: what the functions need, and nothing that only people or pipelines use."""

from __future__ import annotations

import shutil
from pathlib import Path

SHIPPED = ("__init__.py", "entry.py", "wiring.py", "api", "auditlog", "aws", "domain", "loop")
"""The parts of `chalicelib` that the functions load. What only people use needs more libraries and does not ship."""

POLICY_FILES = ("policy.json",)
"""The functions read only the stamped policy; they do not need the roles' permissions or the schema."""


def stage_copy(project: Path, source: Path) -> None:
    """Copy the project's files to `source`, in the layout of a Chalice project.

    Chalice packages `app.py`, `chalicelib` and the content of `vendor`, and follows links there. So links in `vendor`
    add the policy and its stamp, which is written after this.
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
