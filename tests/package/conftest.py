"""The package as `make package` left it, and the two ways to look at its template."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from samtranslator.translator.transform import transform

from shipping.__main__ import package as make_package

PROJECT = Path(__file__).resolve().parents[2]


class NoManagedPolicies:
    """Stands in for the loader that asks IAM for AWS's managed policies: the template names none."""

    def load(self) -> dict[str, str]:
        return {}


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's folder."""
    return PROJECT


@pytest.fixture(scope="session")
def package() -> Path:
    """The folder with the templates and the zip. `make test` builds it first; a copy of the project has none yet."""
    folder = PROJECT / "build" / "dev" / "package"
    return folder if (folder / "sam.json").is_file() else make_package("dev")


@pytest.fixture(scope="session")
def sam(package: Path) -> dict[str, Any]:
    """The template that is deployed."""
    template: dict[str, Any] = json.loads((package / "sam.json").read_text("utf-8"))
    return template


@pytest.fixture(scope="session")
def tables(package: Path) -> dict[str, Any]:
    """The template of the tables' stack."""
    template: dict[str, Any] = json.loads((package / "tables.json").read_text("utf-8"))
    return template


@pytest.fixture(scope="session")
def spoke_region(package: Path) -> dict[str, Any]:
    """The template of the other Regions."""
    template: dict[str, Any] = json.loads((package / "spoke-region.json").read_text("utf-8"))
    return template


@pytest.fixture(scope="session")
def expanded(sam: dict[str, Any]) -> dict[str, Any]:
    """What CloudFormation makes of the template: SAM's shorthand written out."""
    located = copy.deepcopy(sam)
    for resource in of_type(located, "AWS::Serverless::Function").values():
        resource["Properties"]["CodeUri"] = "s3://bucket/deployment.zip"  # as `aws cloudformation package` fills it in
    with pytest.MonkeyPatch.context() as surroundings:
        surroundings.setenv("AWS_DEFAULT_REGION", "us-east-1")
        written_out: dict[str, Any] = transform(located, {}, NoManagedPolicies())
    return written_out


def of_type(template: dict[str, Any], kind: str) -> dict[str, Any]:
    """The template's resources of a type, by logical id."""
    return {name: resource for name, resource in template["Resources"].items() if resource["Type"] == kind}
