"""A finding says where the document is wrong, what is there and what is allowed. Only a valid document is stamped."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from chalicelib.domain.policy import (
    BreakGlass,
    KeyKind,
    Limits,
    ManagedKey,
    Mode,
    Policy,
    PolicyError,
    Require,
    Rule,
    When,
    load_stamped,
    sha256_of,
)
from chalicelib.operators.policy_check import SCHEMA_PATH, Checked, InvalidPolicy, check, main, stamp, validate
from chalicelib.operators.policy_findings import Finding

SHIPPED = SCHEMA_PATH.parent
SCHEMA: dict[str, Any] = json.loads(SCHEMA_PATH.read_bytes())
DOCUMENT: dict[str, Any] = json.loads((SHIPPED / "policy.json").read_bytes())

Change = Callable[[dict[str, Any]], object]


def checked(change: Change) -> Checked:
    """The shipped document, changed, and checked."""
    document = copy.deepcopy(DOCUMENT)
    change(document)
    return check(json.dumps(document).encode(), SCHEMA_PATH.read_bytes())


def warnings(result: Checked) -> list[Finding]:
    return [finding for finding in result.findings if finding.warning]


def in_rule(**values: Any) -> Change:
    return lambda document: document["rules"][0].update(values)


def in_key(**values: Any) -> Change:
    return lambda document: document["rules"][0]["managed_key"].update(values)


def in_require(**values: Any) -> Change:
    return lambda document: document["rules"][0]["require"].update(values)


def in_break_glass(**values: Any) -> Change:
    return lambda document: document["rules"][0]["break_glass"].update(values)


def without(part: str) -> Change:
    return lambda document: document["rules"][0].pop(part)


def add_rule(**values: Any) -> Change:
    return lambda document: document["rules"].append({**document["rules"][0], **values})


RULE = "/rules/0"
KEY = "/rules/0/managed_key"
BREAK_GLASS = "/rules/0/break_glass"
ALLOWED = "/rules/0/require/allowed_keys"

WRONG: list[tuple[Change, str, str, str]] = [
    (lambda d: d.update(version=2), "/version", "2", "the number 1"),
    (lambda d: d.update(version=True), "/version", "true", "the number 1"),
    (lambda d: d.pop("version"), "/version", "absent", "the number 1"),
    (lambda d: d.update(rules=[]), "/rules", "[]", "at least one"),
    (lambda d: d.update(rule=[]), "/rule", "[]", "did you mean rules?"),
    (lambda d: d["limits"].update(max_backoff_minutes=0), "/limits/max_backoff_minutes", "0", "from 1 to 1440"),
    (lambda d: d["limits"].update(remediations_per_sweep="5"), "/limits/remediations_per_sweep", '"5"', "whole number"),
    (in_rule(id="a b"), f"{RULE}/id", '"a b"', "letters, digits"),
    (in_rule(mode="enforced"), f"{RULE}/mode", '"enforced"', "enforce (remediate)"),
    (in_rule(when="used"), f"{RULE}/when", '"used"', "always"),
    (in_rule(accounts=[]), f"{RULE}/accounts", "[]", "at least one"),
    (in_rule(accounts=["12345"]), f"{RULE}/accounts/0", '"12345"', "twelve digits"),
    (in_rule(accounts=["1234567890123*"]), f"{RULE}/accounts/0", '"1234567890123*"', "twelve digits"),
    (in_rule(accounts=["*", "*"]), f"{RULE}/accounts", '["*", "*"]', "each once"),
    (in_rule(regions=["US-*"]), f"{RULE}/regions/0", '"US-*"', "lower-case"),
    (in_rule(regions=["useast1"]), f"{RULE}/regions/0", '"useast1"', "such as eu-central-1"),
    (in_rule(regions=["[ab]*"]), f"{RULE}/regions/0", '"[ab]*"', "* and ?"),
    (in_rule(requires={}), f"{RULE}/requires", "{}", "did you mean require?"),
    (without("require"), f"{RULE}/require", "absent", "unless the mode is off"),
    (without("managed_key"), f"{RULE}/managed_key", "absent", "unless the mode is off"),
    (in_require(key="aws"), f"{RULE}/require/key", '"aws"', "customer"),
    (in_require(rotation="yes"), f"{RULE}/require/rotation", '"yes"', "true or false"),
    (in_require(spans="encrypted"), f"{RULE}/require/spans", '"encrypted"', "encrypt"),
    (in_require(copies_to=["4444*", "11"]), f"{RULE}/require/copies_to/1", '"11"', "twelve digits"),
    (in_require(copies_to=["arn:aws:oam"]), f"{RULE}/require/copies_to/0", '"arn:aws:oam"', "twelve digits"),
    (in_require(copies_to="4444*"), f"{RULE}/require/copies_to", '"4444*"', "list"),
    (in_require(same_account=1), f"{RULE}/require/same_account", "1", "true or false"),
    (in_require(allowed_keys=[]), ALLOWED, "[]", "a list with alias/xray-encryption in it"),
    (in_require(allowed_keys=["alias/other"]), ALLOWED, '["alias/other"]', "alias/xray-encryption"),
    (in_require(key="any-kms", allowed_keys=["alias/other"]), ALLOWED, '["alias/other"]', "alias/xray-encryption"),
    (in_require(allowed_keys=["arn:aws:kms:eu-*:*:key/*"]), ALLOWED, '["arn:aws:kms:eu-*:*:key/*"]', "alias/xray"),
    (in_require(allowed_keys=["alias/x*"]), f"{ALLOWED}/0", '"alias/x*"', "no glob"),
    (in_require(allowed_keys=["alias/aws/xray"]), f"{ALLOWED}/0", '"alias/aws/xray"', "customer managed keys"),
    (in_require(allowed_keys=["1234abcd"]), f"{ALLOWED}/0", '"1234abcd"', "a key ARN"),
    (in_require(allowed_keys=["arn:aws:kms:*:*:alias/a"]), f"{ALLOWED}/0", '"arn:aws:kms:*:*:alias/a"', "key/ID"),
    (in_require(allowed_keys=["arn:aws:kms:*:12:key/*"]), f"{ALLOWED}/0", '"arn:aws:kms:*:12:key/*"', "twelve"),
    (in_key(alias="xray"), f"{KEY}/alias", '"xray"', "alias/ and a name"),
    (in_key(alias="alias/aws/xray"), f"{KEY}/alias", '"alias/aws/xray"', "not beginning with alias/aws/"),
    (in_key(alias="alias/a.b"), f"{KEY}/alias", '"alias/a.b"', "letters, digits"),
    (in_key(alias="alias/" + "x" * 251), f"{KEY}/alias", "…", "256 characters"),
    (in_key(alias="alias/x\n"), f"{KEY}/alias", '"alias/x\\n"', "printable"),
    (in_key(rotation_days=89), f"{KEY}/rotation_days", "89", "90 to 2560"),
    (in_key(rotation_days=2561), f"{KEY}/rotation_days", "2561", "90 to 2560"),
    (in_key(rotation_days=True), f"{KEY}/rotation_days", "true", "90 to 2560"),
    (in_key(tags={"aws:team": "a"}), f"{KEY}/tags", '"aws:team"', "aws:"),
    (in_key(tags={"xray-guard": "a"}), f"{KEY}/tags", '"xray-guard"', "neither xray-guard"),
    (in_key(tags={"Xray-Guard-Nonce": "a"}), f"{KEY}/tags", '"Xray-Guard-Nonce"', "xray-guard-nonce"),
    (in_key(tags={"a": 1}), f"{KEY}/tags/a", "1", "a text"),
    (in_key(tags={"a/b": "é"}), f"{KEY}/tags/a~1b", '"é"', "256 letters"),
    (in_key(tags={"Xray-Guard-Break-Glass": "a"}), f"{KEY}/tags/Xray-Guard-Break-Glass", "Glass", "any other tag"),
    (in_key(trace_readers="everyone"), f"{KEY}/trace_readers", '"everyone"', '"account"'),
    (in_key(trace_readers=[]), f"{KEY}/trace_readers", "[]", "at least one ARN pattern"),
    (in_key(trace_readers=["arn:aws:iam::1:role/x"]), f"{KEY}/trace_readers/0", "iam::1:", "twelve digits"),
    (in_key(trace_readers=["role/Reader"]), f"{KEY}/trace_readers/0", '"role/Reader"', "ARN pattern"),
    (
        in_key(trace_readers=[f"arn:*:iam::*:role/{'x' * 400}{n}" for n in range(90)]),
        f"{KEY}/trace_readers",
        "90 patterns",
        "32768",
    ),
    (in_key(ensure="no"), f"{KEY}/ensure", '"no"', "true or false"),
    (in_break_glass(max_hours=0), f"{BREAK_GLASS}/max_hours", "0", "1 to 168"),
    (in_break_glass(max_hours=169), f"{BREAK_GLASS}/max_hours", "169", "1 to 168"),
    (in_break_glass(tag="xray-guard"), f"{BREAK_GLASS}/tag", '"xray-guard"', "neither"),
    (in_break_glass(tag="AWS:x"), f"{BREAK_GLASS}/tag", '"AWS:x"', "aws:"),
    (in_break_glass(principals=[]), f"{BREAK_GLASS}/principals", "[]", "at least one"),
    (in_break_glass(principals=["*"]), f"{BREAK_GLASS}/principals/0", '"*"', "ARN pattern"),
    (in_break_glass(principals=["arn:*:iam::*:*"]), f"{BREAK_GLASS}/principals/0", "iam::*:*", "role/NAME"),
    (in_break_glass(principals=["arn:*:iam::*:root"]), f"{BREAK_GLASS}/principals/0", "root", "role/NAME"),
    (
        in_break_glass(principals=["arn:*:sts::*:assumed-role/a/b"]),
        f"{BREAK_GLASS}/principals/0",
        "assumed-role",
        "role/NAME",
    ),
    (
        in_break_glass(principals=["arn:*:iam::*:role/${aws:username}"]),
        f"{BREAK_GLASS}/principals/0",
        "username",
        "role/NAME",
    ),
    (add_rule(), "/rules/1/id", '"baseline"', "rule 0 already has this id"),
]


@pytest.mark.parametrize(("change", "path", "value", "allowed"), WRONG, ids=[f"{case[1]}={case[2]}" for case in WRONG])
def test_an_error_names_the_path_the_value_and_what_is_allowed(
    change: Change, path: str, value: str, allowed: str
) -> None:
    result = checked(change)

    assert result.policy is None
    finding = next(finding for finding in result.errors if finding.path == path)
    assert value in finding.value
    assert allowed in finding.message


@pytest.mark.parametrize(
    ("document", "value", "message"),
    [
        (b"{", "line 1, column 2", "not JSON"),
        (b'{"version": 1,\n "rules": [}', "line 2, column 12", "not JSON"),
        (b"", "line 1, column 1", "not JSON"),
        (b"\xff\xfe\xfa", "the document", "not JSON"),
        (b'{"version": NaN}', "the document", "NaN"),
        (b"[" * 100_000, "the document", "not JSON"),
        (b"[]", "[]", "an object with version, rules"),
        (b"null", "null", "an object with version, rules"),
        (b'{"version": 1.0, "rules": []}', "[]", "at least one"),
    ],
)
def test_what_is_no_document_at_all_is_a_finding_too(document: bytes, value: str, message: str) -> None:
    result = check(document, SCHEMA_PATH.read_bytes())

    assert result.policy is None
    assert value in result.findings[0].value
    assert message in result.findings[0].message


def test_a_number_that_only_the_schema_takes_for_whole_is_refused() -> None:
    result = checked(in_key(rotation_days=365.0))

    assert result.policy is None
    assert "rotation_days" in result.findings[0].message


def test_a_key_that_stands_twice_is_refused_where_it_stands() -> None:
    text = json.dumps(DOCUMENT).replace('"mode": "enforce"', '"mode": "off", "mode": "enforce"')

    assert [finding.path for finding in check(text.encode(), SCHEMA_PATH.read_bytes()).errors] == ["/rules/0/mode"]


LONGEST = "alias/" + "x" * 250

RIGHT: list[Change] = [
    lambda document: None,
    lambda document: document.pop("limits"),
    lambda document: document.update({"$schema": "policy.schema.json"}),
    without("break_glass"),
    without("when"),
    in_rule(accounts=["111122223333", "2222*", "????????????"], regions=["eu-central-1", "us-gov-*"]),
    lambda document: (in_key(alias=LONGEST)(document), in_require(allowed_keys=[LONGEST])(document)),
    in_key(trace_readers=["arn:*:iam::*:role/a/Reader", "arn:aws:iam::111122223333:user/*"], ensure=True),
    in_require(key="any-kms", allowed_keys=[]),
    in_require(allowed_keys=["arn:*:kms:*:*:key/*"], same_account=False, rotation=False),
    in_break_glass(principals=["arn:*:iam::*:user/ops/*", "arn:*:iam::*:role/aws-reserved/sso.amazonaws.com/*BG_*"]),
    add_rule(id="second", mode="off", accounts=["9*"]),
]


@pytest.mark.parametrize("change", RIGHT)
def test_what_the_design_allows_is_valid(change: Change) -> None:
    result = checked(change)

    assert result.errors == ()
    assert isinstance(result.policy, Policy)


def test_a_rule_below_one_that_matches_all_of_its_targets_is_warned_of_and_still_valid() -> None:
    result = checked(add_rule(id="second", accounts=["111122223333"]))

    assert result.policy is not None
    assert [finding.path for finding in warnings(result)] == ["/rules/1"]
    assert "baseline" in warnings(result)[0].message


def test_a_rule_that_several_above_it_cover_together_is_warned_of() -> None:
    def change(document: dict[str, Any]) -> None:
        base = document["rules"][0]
        document["rules"] = [
            {**base, "id": "one", "accounts": ["1*"]},
            {**base, "id": "two", "accounts": ["2*"]},
            {**base, "id": "three", "accounts": ["12*", "2222*"], "regions": ["eu-*"]},
            {**base, "id": "four", "accounts": ["12*", "3*"]},
        ]

    assert [finding.path for finding in warnings(checked(change))] == ["/rules/2"]


@pytest.mark.parametrize("principal", ["arn:*:iam::*:role/*", "arn:aws:iam::*:user/**"])
def test_break_glass_for_everybody_is_warned_of(principal: str) -> None:
    assert [finding.path for finding in warnings(checked(in_break_glass(principals=[principal])))] == [
        f"{BREAK_GLASS}/principals/0"
    ]


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def every_object_schema(schema: object) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [found for part in schema for found in every_object_schema(part)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") == "object" else []
    return own + [found for part in schema.values() for found in every_object_schema(part)]


def test_the_schema_lets_no_object_hold_what_it_does_not_name() -> None:
    assert len(every_object_schema(SCHEMA)) == 7
    for schema in every_object_schema(SCHEMA):
        named_freely = "propertyNames" in schema  # tags: any name of the right form, and texts for values
        assert schema["additionalProperties"] is False or named_freely


@pytest.mark.parametrize(
    ("definition", "type_"),
    [
        ("limits", Limits),
        ("rule", Rule),
        ("require", Require),
        ("managed_key", ManagedKey),
        ("break_glass", BreakGlass),
    ],
)
def test_the_schema_and_the_types_name_the_same_things_with_the_same_defaults(
    definition: str, type_: type[Any]
) -> None:
    properties = SCHEMA["$defs"][definition]["properties"]
    fields = {field.name: field for field in structs.fields(type_)}

    where = f"policy.schema.json and {type_.__name__} in chalicelib/domain/policy.py must have the same fields"
    assert properties.keys() == fields.keys(), where
    for name, schema in properties.items():
        if "default" in schema:
            assert fields[name].default == schema["default"]


def test_the_schema_and_the_types_know_the_same_words() -> None:
    properties = SCHEMA["$defs"]["rule"]["properties"]

    assert set(properties["mode"]["enum"]) == set(Mode)
    assert set(properties["when"]["enum"]) == set(When)
    assert set(SCHEMA["$defs"]["require"]["properties"]["key"]["enum"]) == set(KeyKind)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path] * bool(path) + [place for step, child in children for place in places(child, (*path, step))]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(places(DOCUMENT)), JSON_VALUES)
def test_whatever_stands_anywhere_the_document_is_read_or_refused_with_a_reason(
    place: tuple[Any, ...], value: Any
) -> None:
    document = copy.deepcopy(DOCUMENT)
    node: Any = document
    for step in place[:-1]:
        node = node[step]
    node[place[-1]] = value

    result = check(json.dumps(document).encode(), SCHEMA_PATH.read_bytes())

    assert (result.policy is None) == bool(result.errors)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_bring_the_check_down(content: bytes) -> None:
    assert check(content, SCHEMA_PATH.read_bytes()).policy is None


def test_P12_a_document_that_is_not_valid_gets_no_stamp_and_loses_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_bytes((SHIPPED / "policy.json").read_bytes())
    stamp(tmp_path)
    (tmp_path / "policy.json").write_text("{}")

    with pytest.raises(InvalidPolicy, match="/rules"):
        stamp(tmp_path)
    with pytest.raises(PolicyError) as refused:
        load_stamped(tmp_path)
    assert refused.value.code == "POLICY_UNSTAMPED"


def test_the_stamp_names_the_document_and_the_schema_that_it_passed(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_bytes((SHIPPED / "policy.json").read_bytes())
    stamp(tmp_path)

    assert json.loads((tmp_path / "policy.stamp.json").read_bytes()) == {
        "sha256": sha256_of((SHIPPED / "policy.json").read_bytes()),
        "schema_sha256": sha256_of(SCHEMA_PATH.read_bytes()),
    }


def test_a_lax_schema_beside_a_document_has_no_say(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"version": 1, "rules": []}')
    (tmp_path / "policy.schema.json").write_text("{}")

    assert validate(tmp_path / "policy.json").policy is None


def test_the_command_stamps_a_valid_folder_and_answers_with_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "policy.json").write_bytes((SHIPPED / "policy.json").read_bytes())

    assert main(["validate", str(tmp_path)]) == 0
    assert not (tmp_path / "policy.stamp.json").exists()
    assert main(["stamp", str(tmp_path)]) == 0
    assert load_stamped(tmp_path).rules
    (tmp_path / "policy.json").write_text("[]")
    assert main(["stamp", str(tmp_path)]) == 1
    assert main(["validate", str(tmp_path / "nowhere")]) == 1
    assert main(["stamp"]) == 2
    assert "allowed" in capsys.readouterr().err
