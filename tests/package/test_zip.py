"""What ships: whole, lean, quick to start, and the same bytes from the same source."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import marshal
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import CodeType

import pytest

from chalicelib.domain.policy import load_stamped
from shipping import archive
from shipping.__main__ import PackagingError
from shipping.__main__ import package as make_package


@pytest.fixture(scope="session")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip as Lambda lays it out."""
    folder = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(package / "deployment.zip") as opened:
        opened.extractall(folder)
    return folder


@pytest.fixture
def clone(project: Path, tmp_path: Path) -> Path:
    """A copy of the project in which things may be broken."""
    for name in (".chalice", "chalicelib", "policies", "shipping"):
        shutil.copytree(project / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "deployments"))
    for name in ("app.py", "requirements.txt"):
        shutil.copy2(project / name, tmp_path / name)
    return tmp_path


def test_the_zip_holds_what_must_ship_and_nothing_that_must_not(package: Path) -> None:
    assert archive.check(package / "deployment.zip") == []


def test_the_policy_in_the_zip_is_stamped(unpacked: Path, project: Path) -> None:
    policy = load_stamped(unpacked / "policies")
    assert policy.digest == hashlib.sha256((project / "policies" / "policy.json").read_bytes()).hexdigest()


def test_every_module_is_compiled_for_the_runtime_of_the_template(unpacked: Path, sam: dict[str, object]) -> None:
    assert f'"Runtime": "python{sys.version_info.major}.{sys.version_info.minor}"' in json.dumps(sam)
    sources = sorted(unpacked.rglob("*.py"))
    assert len(sources) > 100
    for source in sources:
        head = Path(importlib.util.cache_from_source(str(source))).read_bytes()[:8]
        assert head[:4] == importlib.util.MAGIC_NUMBER
        assert int.from_bytes(head[4:], "little") == 0b01, "hashed and unchecked: a zip's times cannot be relied on"


def test_tracebacks_name_the_file_as_it_lies_in_the_zip(unpacked: Path) -> None:
    code = marshal.loads(Path(importlib.util.cache_from_source(str(unpacked / "app.py"))).read_bytes()[16:])
    assert isinstance(code, CodeType)
    assert code.co_filename == "app.py"


def test_the_functions_load_nothing_that_only_people_need(unpacked: Path) -> None:
    script = "import sys, app; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    answer = subprocess.run([sys.executable, "-c", script], cwd=unpacked, capture_output=True, text=True, check=True)
    assert not {"jsonschema", "click", "rich", "yaml", "setuptools", "requests"} & set(answer.stdout.split())


def test_the_same_source_gives_the_same_bytes_wherever_it_lies(
    clone: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "another-folder"
    shutil.copytree(clone, elsewhere, copy_function=shutil.copy)  # with other times, too
    first, second = (make_package("dev", folder) for folder in (clone, elsewhere))
    for name in ("deployment.zip", "sam.json", "tables.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize(
    "document",
    ["", "{", "[]", '{"version": 1, "rules": []}', '{"version": 2}'],
    ids=["empty", "not-json", "list", "no-rules", "unknown-version"],
)
def test_p12_no_package_is_made_of_an_invalid_policy(document: str, clone: Path) -> None:
    (clone / "policies" / "policy.json").write_text(document)
    with pytest.raises(PackagingError):
        make_package("dev", clone)
    assert not (clone / "build" / "dev" / "package").exists()


def test_a_stage_that_is_not_configured_is_refused_with_those_that_are(clone: Path) -> None:
    with pytest.raises(PackagingError, match=r"'staging'.*dev, prod"):
        make_package("staging", clone)


def test_a_member_that_went_missing_is_named(package: Path, tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(package / "deployment.zip") as whole,
        zipfile.ZipFile(tmp_path / "part.zip", "w") as part,
    ):
        for name in whole.namelist():
            if not name.startswith(("policies/", "msgspec/__init__")):
                part.writestr(name, whole.read(name))
        part.writestr("boto3/__init__.py", "")
    assert archive.check(tmp_path / "part.zip") == [
        "policies/policy.json is missing",
        "policies/policy.stamp.json is missing",
        "msgspec/__init__.py is missing",
        "boto3 must not be in it",
    ]
