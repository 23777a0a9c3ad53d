"""Validate and stamp policy documents, for packaging and the command line.

As a command: `python -m chalicelib.operators.policy_check validate|stamp FOLDER`. It writes findings to stderr and
exits with 0 if the document is valid, 1 if not, 2 for wrong usage.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from chalicelib.domain.policy import DOCUMENT_NAME, SCHEMA_NAME, STAMP_NAME, Policy, Stamp, parse, sha256_of
from chalicelib.operators.policy_findings import Finding
from chalicelib.operators.policy_meaning import meaning_findings
from chalicelib.operators.policy_schema import form_findings

_INSTALLED = Path(__file__).resolve().parents[1] / "policies"
DOCUMENTS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).resolve().parents[2] / "policies"
"""The folder of the policy and its schema: within the package where it is installed, beside it in a checkout."""

SCHEMA_PATH = DOCUMENTS / SCHEMA_NAME
"""The schema of this version. A schema next to the document is not used."""


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a check. `policy` is None exactly when a finding is an error."""

    policy: Policy | None
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.warning)


class InvalidPolicy(Exception):
    """The document was not stamped; `findings` say why."""

    def __init__(self, path: Path, findings: tuple[Finding, ...]) -> None:
        super().__init__("\n".join([f"{path} is not a valid policy", *map(str, findings)]))
        self.findings = findings


def validate(path: Path, schema_path: Path = SCHEMA_PATH) -> Checked:
    """Check the policy document in a file. Raises OSError where a file cannot be read."""
    return check(path.read_bytes(), schema_path.read_bytes())


def stamp(folder: Path, schema_path: Path = SCHEMA_PATH) -> Checked:
    """Validate `policy.json` in the folder and write `policy.stamp.json`, which `load_stamped` requires.

    Raises OSError, and InvalidPolicy after removing an older stamp.
    """
    (folder / STAMP_NAME).unlink(missing_ok=True)
    document, schema = (folder / DOCUMENT_NAME).read_bytes(), schema_path.read_bytes()
    checked = check(document, schema)
    if checked.policy is None:
        raise InvalidPolicy(folder / DOCUMENT_NAME, checked.findings)
    written = Stamp(sha256=sha256_of(document), schema_sha256=sha256_of(schema))
    (folder / STAMP_NAME).write_bytes(msgspec.json.encode(written) + b"\n")
    return checked


def check(document: bytes, schema: bytes) -> Checked:
    """Check the form of a document with the schema, and then its meaning. Both are the bytes of a file."""
    findings = form_findings(document, schema)
    if findings:
        return Checked(None, tuple(findings))
    try:
        policy = parse(document)
    except ValueError as error:
        # Only a number written as 1.0 satisfies the schema and fails here. msgspec's message names the path.
        return Checked(None, (Finding("", "a value", f"not in the expected form: {error}"),))
    findings = list(meaning_findings(policy))
    return Checked(policy if all(finding.warning for finding in findings) else None, tuple(findings))


# --- As a command ----------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Run `validate FOLDER` or `stamp FOLDER`. Returns the exit code."""
    if len(arguments) != 2 or arguments[0] not in ("validate", "stamp"):
        sys.stderr.write("usage: python -m chalicelib.operators.policy_check validate|stamp FOLDER\n")
        return 2
    verb, folder = arguments[0], Path(arguments[1])
    try:
        checked = validate(folder / DOCUMENT_NAME) if verb == "validate" else stamp(folder)
    except InvalidPolicy as invalid:
        checked = Checked(None, invalid.findings)
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return 1
    sys.stderr.writelines(f"{finding}\n" for finding in checked.findings)
    return 0 if checked.policy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
