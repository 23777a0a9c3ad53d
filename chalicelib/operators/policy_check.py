"""Whether a policy document may be stamped: its schema, and what no schema can say.

For packaging and the command line; the functions never import this. As a command:
`python -m chalicelib.operators.policy_check validate|stamp FOLDER` (findings on stderr; exit 0 good, 1 not valid,
2 usage).
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
from jsonschema.exceptions import ValidationError

from chalicelib.domain.keypolicy.wanted import LONGEST_POLICY_BYTES, initial_policy
from chalicelib.domain.model import Target, arn_part, is_region
from chalicelib.domain.policy import (
    DOCUMENT_NAME,
    SCHEMA_NAME,
    STAMP_NAME,
    KeyKind,
    Mode,
    Policy,
    Rule,
    Stamp,
    glob_covers,
    parse,
    sha256_of,
)

SCHEMA_PATH = Path(__file__).resolve().parents[2] / "policies" / SCHEMA_NAME
"""The schema that belongs to this code; one that lies beside some document has no say."""

_LONGEST_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the document: where (a JSON Pointer), what stands there, and what is allowed.

    A warning does not keep the document from being stamped.
    """

    path: str
    value: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{'warning: ' if self.warning else ''}{self.path or '(whole document)'}: {self.value} - {self.message}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a check. `policy` is None exactly when a finding is an error."""

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
    """Validate `policy.json` of the folder and vouch for it in `policy.stamp.json`, for which `load_stamped` asks.

    Raises InvalidPolicy, and then no stamp is left in the folder, and OSError.
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
    """Check the bytes of a document against the bytes of the schema, and then for what only its meaning tells."""
    try:
        read = json.loads(document, object_pairs_hook=_Object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return _refused(Finding("", f"line {error.lineno}, column {error.colno}", f"not JSON: {error.msg}"))
    except (ValueError, RecursionError) as error:
        return _refused(Finding("", "the document", f"not JSON: {error}"))
    # An object that lacks several keys is told of once for each of them, and each time the same.
    findings = list(
        dict.fromkeys([*_keys_twice(read), *_control_characters(read), *_schema_findings(read, json.loads(schema))])
    )
    if findings:
        return _refused(*findings)
    try:
        policy = parse(document)
    except ValueError as error:
        # Only a number written 1.0 passes the schema and comes here; msgspec's text ends with where it stands.
        return _refused(Finding("", "a value", f"not in the expected form: {error}"))
    findings = list(_meaning_findings(policy))
    return Checked(policy if all(finding.warning for finding in findings) else None, tuple(findings))


def _refused(*findings: Finding) -> Checked:
    return Checked(None, findings)


# --- Shape -----------------------------------------------------------------------------------------------------------


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its keys stood there more than once."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.twice = sorted({key for key in keys if keys.count(key) > 1})


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _keys_twice(read: object, path: tuple[str | int, ...] = ()) -> Iterator[Finding]:
    if isinstance(read, _Object):
        for key in read.twice:
            yield Finding(_pointer((*path, key)), _shown(read[key]), "duplicate key in its object; allowed: once")
    for step, child in _children(read):
        yield from _keys_twice(child, (*path, step))


def _control_characters(read: object, path: tuple[str | int, ...] = ()) -> Iterator[Finding]:
    # The schema's patterns cannot say it: to Python's `$` a line's end is as good as the text's.
    if isinstance(read, str) and not read.isprintable():
        yield Finding(_pointer(path), _shown(read), "allowed: printable characters only")
    for step, child in _children(read):
        if isinstance(step, str) and not step.isprintable():
            yield Finding(_pointer((*path, step)), _shown(step), "allowed: a key of printable characters only")
        yield from _control_characters(child, (*path, step))


def _children(read: object) -> Iterable[tuple[str | int, object]]:
    if isinstance(read, dict):
        return tuple(read.items())
    return enumerate(read) if isinstance(read, list) else ()


def _schema_findings(read: object, schema: Any) -> Iterator[Finding]:
    validator = jsonschema.Draft202012Validator(schema)
    for error in sorted(validator.iter_errors(read), key=lambda error: [str(step) for step in error.absolute_path]):
        yield from _of_schema_error(error)


def _of_schema_error(error: ValidationError) -> Iterator[Finding]:
    path: tuple[str | int, ...] = tuple(error.absolute_path)
    instance: Any = error.instance
    asked: Any = error.validator_value
    known = sorted(error.schema.get("properties", ())) if isinstance(error.schema, dict) else []
    match error.validator:
        case "additionalProperties" if known:
            for key in sorted(instance.keys() - set(known)):
                near = difflib.get_close_matches(key, known, 1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                yield Finding(
                    _pointer((*path, key)),
                    _shown(instance[key]),
                    f"unknown key{hint}; allowed: {', '.join(known)}",
                )
        case "required":
            for key in asked:
                if key not in instance:
                    yield Finding(_pointer((*path, key)), "absent", f"required; allowed: {_allowed_at(error, key)}")
        case "anyOf":
            yield from _of_alternatives(error)
        case "uniqueItems":
            yield Finding(_pointer(path), _shown(instance), "duplicate entry; allowed: each once")
        case _:
            # A bad tag key is an error of the name, so the name is the value to show.
            yield Finding(_pointer(path), _shown(instance), f"allowed: {_description(error.schema)}")


def _of_alternatives(error: ValidationError) -> Iterator[Finding]:
    """What is wrong with one entry of a list says more than that the whole list is none of the alternatives."""
    deeper = [inner for inner in error.context or () if inner.path and isinstance(error.instance, list)]
    if not deeper:
        yield Finding(
            _pointer(tuple(error.absolute_path)), _shown(error.instance), f"allowed: {_description(error.schema)}"
        )
    for inner in deeper:
        yield from _of_schema_error(inner)


def _allowed_at(error: ValidationError, key: str) -> str:
    properties = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
    if "description" in properties.get(key, {}):
        return str(properties[key]["description"])
    return "an object, unless the mode is off" if key in ("require", "managed_key") else "an object"


def _description(schema: object) -> str:
    return str(schema.get("description", schema)) if isinstance(schema, dict) else str(schema)


def _pointer(path: Iterable[str | int]) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


# --- Meaning ---------------------------------------------------------------------------------------------------------


def _meaning_findings(policy: Policy) -> Iterator[Finding]:
    first_of: dict[str, int] = {}
    for number, rule in enumerate(policy.rules):
        at = f"/rules/{number}"
        if first_of.setdefault(rule.id, number) != number:
            yield Finding(
                f"{at}/id", _shown(rule.id), f"rule {first_of[rule.id]} already has this id; allowed: a unique id"
            )
        yield from _scope_findings(at, rule)
        if rule.mode is not Mode.OFF:
            yield from _key_findings(at, rule)
            yield from _people_findings(at, rule)
        covering = _covered_by(rule, policy.rules[:number])
        if covering:
            yield Finding(
                at,
                _shown(rule.id),
                f"this rule never applies: {', '.join(covering)} above it matches all of its targets",
                warning=True,
            )


def _scope_findings(at: str, rule: Rule) -> Iterator[Finding]:
    for number, account in enumerate(rule.accounts):
        if not _could_be_account(account):
            yield Finding(
                f"{at}/accounts/{number}",
                _shown(account),
                "allowed: twelve digits, or a glob that twelve digits can match",
            )
    for number, region in enumerate(rule.regions):
        if not _has_wildcard(region) and not is_region(region):
            yield Finding(
                f"{at}/regions/{number}",
                _shown(region),
                "allowed: the name of a Region, such as eu-central-1, or a glob",
            )


def _key_findings(at: str, rule: Rule) -> Iterator[Finding]:
    require, managed = rule.require, rule.managed_key
    for number, allowed in enumerate(require.allowed_keys):
        if allowed.startswith("alias/aws/"):
            yield Finding(
                f"{at}/require/allowed_keys/{number}",
                _shown(allowed),
                "the alias of an AWS managed key; allowed: aliases of customer managed keys (any-kms needs no entry)",
            )
        elif allowed.startswith("arn:") and not _could_be_account(arn_part(allowed, 4)):
            yield Finding(
                f"{at}/require/allowed_keys/{number}",
                _shown(allowed),
                "allowed: an ARN whose account has twelve digits",
            )
    restricted = require.key is KeyKind.CUSTOMER or require.allowed_keys
    if restricted and not any(_allows_managed(allowed, rule) for allowed in require.allowed_keys):
        yield Finding(
            f"{at}/require/allowed_keys",
            _shown(require.allowed_keys),
            f"the rule would refuse its own managed key; allowed: a list with {managed.alias} in it",
        )


def _allows_managed(allowed: str, rule: Rule) -> bool:
    """Whether an entry of `allowed_keys` certainly lets the managed key of every target of the rule pass."""
    if not allowed.startswith("arn:"):
        return allowed == rule.managed_key.alias
    return (
        glob_covers(arn_part(allowed, 1), "aws*")
        and arn_part(allowed, 5) == "key/*"
        and all(glob_covers(arn_part(allowed, 3), each) for each in rule.regions)
        and all(glob_covers(arn_part(allowed, 4), each) for each in rule.accounts)
    )


def _people_findings(at: str, rule: Rule) -> Iterator[Finding]:
    readers = rule.managed_key.trace_readers
    if not isinstance(readers, str):
        yield from _principal_findings(f"{at}/managed_key/trace_readers", readers)
        length = len(initial_policy(rule, Target("1" * 12, "x" * 32), "aws-us-gov").encode())
        if length > LONGEST_POLICY_BYTES:
            yield Finding(
                f"{at}/managed_key/trace_readers",
                f"{len(readers)} patterns",
                f"the key policy would have {length} bytes; allowed: {LONGEST_POLICY_BYTES}, so use fewer patterns",
            )
    if rule.break_glass is None:
        return
    yield from _principal_findings(f"{at}/break_glass/principals", rule.break_glass.principals)
    for number, principal in enumerate(rule.break_glass.principals):
        name = arn_part(principal, 5).partition("/")[2]
        if not name.strip("*?/"):
            yield Finding(
                f"{at}/break_glass/principals/{number}",
                _shown(principal),
                "every role or user may open a break-glass; better: name the principals",
                warning=True,
            )
    # IAM compares tag keys without regard to case, KMS with; whoever reads either must not mistake one for the other.
    for tag in rule.managed_key.tags:
        if tag.casefold() == rule.break_glass.tag.casefold():
            yield Finding(
                f"{at}/managed_key/tags{_pointer([tag])}",
                _shown(tag),
                "a new key cannot have the break-glass tag; allowed: any other tag",
            )


def _principal_findings(at: str, patterns: Iterable[str]) -> Iterator[Finding]:
    for number, pattern in enumerate(patterns):
        if not _could_be_account(arn_part(pattern, 4)):
            yield Finding(
                f"{at}/{number}", _shown(pattern), "allowed: an ARN pattern whose account can be twelve digits"
            )


def _covered_by(rule: Rule, earlier: Iterable[Rule]) -> list[str]:
    """The earlier rules that together leave nothing for this one; empty if something certainly or perhaps is left."""
    covering: list[str] = []
    for account, region in product(rule.accounts, rule.regions):
        cover = next(
            (
                other.id
                for other in earlier
                if any(glob_covers(each, account) for each in other.accounts)
                and any(glob_covers(each, region) for each in other.regions)
            ),
            None,
        )
        if cover is None:
            return []
        if cover not in covering:
            covering.append(cover)
    return covering


def _could_be_account(pattern: str) -> bool:
    """Whether some twelve digits fit the glob."""
    fixed = pattern.replace("*", "")
    return len(fixed) == 12 or ("*" in pattern and len(fixed) < 12)


def _has_wildcard(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


# --- As a command ----------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Run `validate FOLDER` or `stamp FOLDER`; the answer is the exit code."""
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
