"""What `make release` writes: a wheel that works without a checkout, the package, a bill of materials, checksums."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from chalicelib.domain.policy import parse
from shipping.release import BILL, CHECKSUMS, pinned, release

GENERATED = {"deployment.zip", "sam.json", "spoke-region.json", "tables.json"}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    """A release, with the package of the stage that the tests use."""
    packaged = project / "build" / "dev" / "package"
    to = tmp_path_factory.mktemp("release") / "release"
    release(packaged, to)
    return to


@pytest.fixture(scope="module")
def installed(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the wheel is installed, without the project beside it."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = released.glob("*.whl")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(folder))
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return folder


def typed(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command line in an empty folder."""
    program = "import chalicelib, sys; from chalicelib.cli import main; sys.stderr.write(chalicelib.__file__); main()"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "XRAY_", "PYTHON"))
    }
    environment |= {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(installed) in done.stderr
    return done


def test_a_release_has_the_wheel_the_package_the_bill_and_a_checksum_of_each(released: Path) -> None:
    names = {path.name for path in released.iterdir()}
    (wheel,) = (name for name in names if name.endswith(".whl"))
    assert names == GENERATED | {wheel, BILL, CHECKSUMS}
    sums = dict(line.split("  ")[::-1] for line in (released / CHECKSUMS).read_text("utf-8").splitlines())
    assert sums == {name: hashlib.sha256((released / name).read_bytes()).hexdigest() for name in names - {CHECKSUMS}}


def test_the_same_source_gives_the_same_bytes(released: Path, tmp_path: Path, project: Path) -> None:
    release(project / "build" / "dev" / "package", tmp_path / "again")
    assert (tmp_path / "again" / CHECKSUMS).read_text("utf-8") == (released / CHECKSUMS).read_text("utf-8")


def test_the_installed_program_validates_a_policy_without_a_checkout(
    installed: Path, tmp_path: Path, project: Path
) -> None:
    document = (project / "policies" / "policy.json").read_bytes()
    default = typed(installed, tmp_path, "policy", "validate")
    assert (default.returncode, parse(document).digest in default.stdout) == (0, True), default.stderr
    (tmp_path / "mine.json").write_bytes(document.replace(b'"enforce"', b'"enfroce"'))
    mine = typed(installed, tmp_path, "policy", "validate", "mine.json")
    assert (mine.returncode, "enfroce" in mine.stdout) == (1, True)


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("completion", "bash"), ("console", "--help")])
def test_the_installed_program_starts(installed: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert typed(installed, tmp_path, *words).returncode == 0


def test_the_wheel_has_the_program_its_pages_and_no_test(released: Path, project: Path) -> None:
    (wheel,) = released.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        (entry,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "xray-guard = chalicelib.cli:main" in opened.read(entry).decode()
    modules = {str(path.relative_to(project)) for path in (project / "chalicelib").rglob("*.py")}
    pages = {str(path.relative_to(project)) for path in (project / "chalicelib" / "console").rglob("*.html")}
    assert modules | pages | {"chalicelib/policies/policy.json", "chalicelib/policies/policy.schema.json"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"chalicelib", "xray_encryption_guard"}
    assert not [name for name in names if "stamp" in name or "iam-" in name]


def test_every_package_is_named_for_the_wheel(project: Path) -> None:
    described = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    folders = {path.parent.relative_to(project) for path in (project / "chalicelib").rglob("*.py")}
    expected = {".".join(folder.parts) for folder in folders} | {"chalicelib.policies"}
    assert set(described["tool"]["setuptools"]["packages"]) == expected


class TestBill:
    @pytest.fixture
    def bill(self, released: Path) -> dict[str, Any]:
        """The bill of materials."""
        document: dict[str, Any] = json.loads((released / BILL).read_text("utf-8"))
        return document

    def test_names_everything_that_the_functions_carry_and_the_program_needs(
        self, bill: dict[str, Any], project: Path
    ) -> None:
        assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
        parts = {each["name"]: {one["value"] for one in each["properties"]} for each in bill["components"]}
        with zipfile.ZipFile(project / "build" / "dev" / "package" / "deployment.zip") as opened:
            infos = {name.split("/")[0] for name in opened.namelist() if ".dist-info/" in name}
        carried = {canonicalize_name(name.rsplit("-", 1)[0]) for name in (each[: -len(".dist-info")] for each in infos)}
        assert {name for name, part in parts.items() if "functions" in part} == carried | {"chalice"}
        described = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
        assert {name for name, part in parts.items() if "command line" in part} >= set(described["dependencies"])
        assert {"botocore", "urllib3", "markupsafe", "referencing"} <= set(parts)

    def test_has_the_pinned_version_of_each_and_no_loose_end(self, bill: dict[str, Any], project: Path) -> None:
        pins = pinned(project / "requirements-dev.txt")
        for each in bill["components"]:
            assert each["version"] == pins[each["name"]]
            assert each["purl"] == each["bom-ref"] == f"pkg:pypi/{each['name']}@{each['version']}"
        refs = {bill["metadata"]["component"]["bom-ref"], *(each["bom-ref"] for each in bill["components"])}
        assert {each["ref"] for each in bill["dependencies"]} == refs
        assert {ref for each in bill["dependencies"] for ref in each["dependsOn"]} <= refs
