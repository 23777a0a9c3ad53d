"""The key's policy, judged by meaning and merged without loss (P13)."""

from __future__ import annotations

import fnmatch
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.domain.keypolicy.document import UnreadablePolicy, difference
from chalicelib.domain.keypolicy.judge import judge_policy
from chalicelib.domain.keypolicy.wanted import (
    BREAK_GLASS,
    LONGEST_POLICY_BYTES,
    READERS,
    ROOT,
    XRAY,
    PolicyTooLong,
    initial_policy,
    merge,
)
from chalicelib.domain.model import Target
from chalicelib.domain.policy import BreakGlass, ManagedKey, Mode, Rule

ACCOUNT = "111122223333"
OTHER_ACCOUNT = "444455556666"
TARGET = Target(ACCOUNT, "us-east-1")
TAG = "xray-guard-break-glass"
SAVIOURS = "arn:*:iam::*:role/SecurityBreakGlass"
VIA_XRAY = "xray.us-east-1.amazonaws.com"
READER_PATTERNS = ("arn:*:iam::*:role/TraceReader", "arn:*:iam::111122223333:user/ops/*")

RULE = Rule(
    id="baseline",
    accounts=("*",),
    regions=("*",),
    mode=Mode.ENFORCE,
    break_glass=BreakGlass(tag=TAG, max_hours=12, principals=(SAVIOURS,)),
)
FEW_READERS = replace(RULE, managed_key=ManagedKey(trace_readers=READER_PATTERNS))
NO_BREAK_GLASS = replace(RULE, break_glass=None)
RULES = (RULE, FEW_READERS, NO_BREAK_GLASS)
EVERY_NAME = (ROOT, XRAY, READERS, BREAK_GLASS)

ROOT_ARN = f"arn:aws:iam::{ACCOUNT}:root"
ROOT_STATEMENT = {"Effect": "Allow", "Principal": {"AWS": ROOT_ARN}, "Action": "kms:*", "Resource": "*"}
XRAY_STATEMENT = {
    "Effect": "Allow",
    "Principal": {"Service": "xray.amazonaws.com"},
    "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
    "Resource": "*",
}
READERS_STATEMENT = {
    "Effect": "Allow",
    "Principal": {"AWS": "*"},
    "Action": "kms:Decrypt",
    "Resource": "*",
    "Condition": {"StringEquals": {"kms:CallerAccount": ACCOUNT, "kms:ViaService": VIA_XRAY}},
}
DENY_STATEMENT = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": ["kms:TagResource", "kms:UntagResource"],
    "Resource": "*",
    "Condition": {
        "ForAnyValue:StringEquals": {"aws:TagKeys": TAG},
        "ArnNotLike": {"aws:PrincipalArn": SAVIOURS},
    },
}
WHOLE = (ROOT_STATEMENT, XRAY_STATEMENT, READERS_STATEMENT, DENY_STATEMENT)


def policy(*statements: object, **others: object) -> str:
    return json.dumps({"Version": "2012-10-17", **others, "Statement": list(statements)})


def missing(*statements: object, rule: Rule = RULE) -> tuple[str, ...]:
    return judge_policy(policy(*statements), rule, TARGET, "aws").missing


def denies(statement: dict[str, Any]) -> bool:
    """Whether a Deny made of these parts, beside all that is wanted, leaves the key unproved."""
    deny = {"Effect": "Deny", "Principal": "*", "Action": "kms:*", "Resource": "*", **statement}
    for absent in [name for name, value in deny.items() if value is None]:
        del deny[absent]
    verdict = judge_policy(policy(*WHOLE, deny), RULE, TARGET, "aws")
    assert verdict.missing == ()
    assert verdict.proved is not bool(verdict.foreign_denies)
    return bool(verdict.foreign_denies)


# --- What a new key gets ---------------------------------------------------------------------------------------------


def new_statement(sid: str, rule: Rule) -> dict[str, Any]:
    statements = json.loads(initial_policy(rule, TARGET, "aws"))["Statement"]
    (statement,) = [each for each in statements if each["Sid"] == sid]
    assert isinstance(statement, dict)
    return statement


@pytest.mark.parametrize("rule", RULES)
def test_a_new_keys_policy_has_all_that_the_rule_asks_and_no_more(rule: Rule) -> None:
    text = initial_policy(rule, TARGET, "aws")

    assert judge_policy(text, rule, TARGET, "aws").proved
    assert len(json.loads(text)["Statement"]) == (3 if rule.break_glass is None else 4)
    assert merge(text, rule, TARGET, "aws") == text


def test_xray_gets_exactly_two_actions_under_no_condition() -> None:
    statement = new_statement("XRayEncryptsTraces", RULE)

    assert statement["Principal"] == {"Service": "xray.amazonaws.com"}
    assert statement["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert "Condition" not in statement


def test_every_arn_is_of_the_callers_partition() -> None:
    text = initial_policy(RULE, Target(ACCOUNT, "us-gov-west-1"), "aws-us-gov")

    assert f"arn:aws-us-gov:iam::{ACCOUNT}:root" in text
    assert "arn:aws:" not in text
    assert "xray.us-gov-west-1.amazonaws.com" in text


def test_the_policy_shown_to_owners_is_the_one_that_the_guard_writes() -> None:
    shown = Path(__file__).resolve().parents[2] / "policies" / "key-policy.json"

    assert json.loads(shown.read_bytes()) == json.loads(initial_policy(RULE, TARGET, "aws"))


def test_listed_readers_are_chosen_by_condition_and_never_named_as_principals() -> None:
    statement = new_statement("TraceReadersThroughXRay", FEW_READERS)

    assert statement["Principal"] == {"AWS": "*"}
    assert statement["Condition"]["ArnLike"] == {"aws:PrincipalArn": list(READER_PATTERNS)}
    assert statement["Condition"]["StringEquals"]["kms:ViaService"] == VIA_XRAY


# --- What is missing -------------------------------------------------------------------------------------------------


def test_an_empty_policy_lacks_everything() -> None:
    assert missing() == EVERY_NAME
    assert missing(rule=NO_BREAK_GLASS) == (ROOT, XRAY, READERS)


@pytest.mark.parametrize("left_out", range(4))
def test_each_statement_that_is_left_out_is_named(left_out: int) -> None:
    assert missing(*(each for number, each in enumerate(WHOLE) if number != left_out)) == (EVERY_NAME[left_out],)


@pytest.mark.parametrize(
    "same",
    [
        ROOT_STATEMENT | {"Principal": {"AWS": ACCOUNT}},
        ROOT_STATEMENT | {"Principal": {"AWS": [ROOT_ARN, f"arn:aws:iam::{OTHER_ACCOUNT}:root"]}},
        ROOT_STATEMENT | {"Action": ["KMS:*"]},
        ROOT_STATEMENT | {"Action": "*", "Resource": ["*"]},
        ROOT_STATEMENT | {"Resource": f"arn:aws:kms:us-east-1:{ACCOUNT}:key/*", "Condition": {}, "Sid": "Any name"},
    ],
)
def test_the_root_statement_is_known_in_other_forms(same: dict[str, Any]) -> None:
    assert ROOT not in missing(same)


@pytest.mark.parametrize(
    "narrower",
    [
        ROOT_STATEMENT | {"Effect": "Deny"},
        ROOT_STATEMENT | {"Principal": {"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:root"}},
        ROOT_STATEMENT | {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/Admin"}},
        ROOT_STATEMENT | {"Principal": {"AWS": f"arn:aws-cn:iam::{ACCOUNT}:root"}},
        ROOT_STATEMENT | {"Principal": {"Service": ACCOUNT}},
        ROOT_STATEMENT | {"Principal": {"AWS": "*"}},
        ROOT_STATEMENT | {"Action": ["kms:Put*", "kms:Get*"]},
        ROOT_STATEMENT | {"Resource": f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1234"},
        ROOT_STATEMENT | {"Condition": {"Bool": {"aws:MultiFactorAuthPresent": "true"}}},
        ROOT_STATEMENT | {"Unknown": "x"},
        {"Effect": "Allow", "Principal": {"AWS": ROOT_ARN}, "NotAction": "iam:*", "Resource": "*"},
        {"Effect": "Allow", "NotPrincipal": {"AWS": "arn:x"}, "Action": "kms:*", "Resource": "*"},
        {"Effect": "Allow", "Principal": {"AWS": ROOT_ARN}, "Action": "kms:*"},
    ],
)
def test_what_may_be_less_than_the_root_statement_does_not_count_as_it(narrower: dict[str, Any]) -> None:
    assert ROOT in missing(narrower)


@pytest.mark.parametrize(
    "same",
    [
        [XRAY_STATEMENT | {"Action": "kms:*"}],
        [XRAY_STATEMENT | {"Action": ["kms:generatedatakey", "KMS:Dec?ypt"]}],
        [XRAY_STATEMENT | {"Principal": {"Service": ["logs.amazonaws.com", "xray.amazonaws.com"], "AWS": ROOT_ARN}}],
        [XRAY_STATEMENT | {"Action": "kms:Decrypt"}, XRAY_STATEMENT | {"Action": ["kms:GenerateDataKey*"]}],
    ],
)
def test_xrays_statement_is_known_in_other_forms_and_in_parts(same: list[dict[str, Any]]) -> None:
    assert XRAY not in missing(*same)


@pytest.mark.parametrize(
    "narrower",
    [
        XRAY_STATEMENT | {"Action": "kms:Decrypt"},
        XRAY_STATEMENT | {"Action": ["kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt"]},
        XRAY_STATEMENT | {"Principal": {"Service": "xray.us-east-1.amazonaws.com"}},
        XRAY_STATEMENT | {"Principal": {"AWS": "xray.amazonaws.com"}},
        XRAY_STATEMENT | {"Principal": "*"},
        XRAY_STATEMENT | {"Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}}},
        XRAY_STATEMENT | {"Condition": {"StringEquals": "x"}},
    ],
)
def test_what_may_be_less_than_xrays_statement_does_not_count_as_it(narrower: dict[str, Any]) -> None:
    assert XRAY in missing(narrower)


def reading(**conditions: object) -> dict[str, Any]:
    return READERS_STATEMENT | {"Condition": conditions}


@pytest.mark.parametrize(
    "same",
    [
        reading(),
        reading(StringEquals={"kms:viaservice": ["ec2.us-east-1.amazonaws.com", VIA_XRAY]}),
        reading(StringLike={"kms:ViaService": "xray.*.amazonaws.com"}),
        reading(StringEqualsIgnoreCase={"kms:ViaService": VIA_XRAY.upper()}),
        reading(StringEqualsIfExists={"kms:CallerAccount": [OTHER_ACCOUNT, ACCOUNT]}),
        reading() | {"Principal": "*", "Action": ["kms:Dec*"]},
    ],
)
def test_the_readers_statement_is_known_in_other_forms(same: dict[str, Any]) -> None:
    assert READERS not in missing(same)
    assert READERS not in missing(same, rule=FEW_READERS)


@pytest.mark.parametrize(
    "narrower",
    [
        READERS_STATEMENT | {"Principal": {"AWS": ROOT_ARN}},
        READERS_STATEMENT | {"Action": "kms:Encrypt"},
        reading(StringEquals={"kms:CallerAccount": OTHER_ACCOUNT}),
        reading(StringEquals={"kms:ViaService": "xray.eu-west-1.amazonaws.com"}),
        reading(StringEquals={"kms:CallerAccount": []}),
        reading(StringNotEquals={"kms:CallerAccount": OTHER_ACCOUNT}),
        reading(StringEquals={"aws:PrincipalOrgID": "o-1"}),
        reading(**{"ForAllValues:StringEquals": {"kms:ViaService": VIA_XRAY}}),
        reading(StringLike={"kms:ViaService": "${aws:username}*"}),
        reading(Bool={"kms:CallerAccount": True}),
        reading(ArnLike={"aws:PrincipalArn": "arn:*:iam::*:role/TraceReader"}),
    ],
)
def test_what_may_be_less_than_the_readers_statement_does_not_count_as_it(narrower: dict[str, Any]) -> None:
    assert READERS in missing(narrower)
    assert READERS in missing(narrower, rule=FEW_READERS)


@pytest.mark.parametrize(
    ("operator", "patterns", "enough"),
    [
        ("ArnLike", READER_PATTERNS, True),
        ("ArnEquals", ("arn:*:iam::*:*",), True),
        ("StringLike", ("arn:*",), True),
        ("ArnLike", ("arn:*",), False),
        ("ArnLike", READER_PATTERNS[:1], False),
        ("StringEquals", READER_PATTERNS, False),
        ("ArnNotLike", READER_PATTERNS, False),
    ],
)
def test_listed_readers_are_let_in_by_any_condition_that_covers_every_pattern(
    operator: str, patterns: tuple[str, ...], enough: bool
) -> None:
    statement = reading(**{operator: {"aws:PrincipalArn": list(patterns)}})

    assert (READERS not in missing(statement, rule=FEW_READERS)) is enough


def test_listed_readers_may_be_let_in_one_statement_each() -> None:
    statements = [reading(ArnLike={"aws:PrincipalArn": pattern}) for pattern in READER_PATTERNS]

    assert READERS not in missing(*statements, rule=FEW_READERS)


def shielding(*, principal: object = "*", action: object = DENY_STATEMENT["Action"], **conditions: object) -> object:
    return DENY_STATEMENT | {"Principal": principal, "Action": action, "Condition": conditions}


TAG_IS_TOUCHED = {"aws:TagKeys": [TAG, "another"]}


@pytest.mark.parametrize(
    "same",
    [
        [shielding(principal={"AWS": ["*"]}, **{"ForAnyValue:StringEquals": TAG_IS_TOUCHED})],
        [shielding(action="kms:*agResource", **{"foranyvalue:stringlike": {"AWS:tagkeys": "xray-guard-*"}})],
        [shielding(ArnNotLike={"aws:PrincipalArn": "arn:aws:iam::111122223333:role/SecurityBreakGlass"})],
        [shielding(StringNotEquals={"aws:PrincipalArn": "arn:aws:iam::111122223333:role/SecurityBreakGlass"})],
        [shielding()],
        [shielding(action="kms:TagResource"), shielding(action="kms:UntagResource")],
    ],
)
def test_the_break_glass_deny_is_known_in_other_and_stricter_forms(same: list[object]) -> None:
    assert BREAK_GLASS not in missing(*same)


@pytest.mark.parametrize(
    "laxer",
    [
        DENY_STATEMENT | {"Effect": "Allow"},
        shielding(principal={"AWS": ROOT_ARN}),
        shielding(action="kms:TagResource"),
        shielding(ArnNotLike={"aws:PrincipalArn": "arn:*:iam::*:role/*"}),
        shielding(ArnNotLike={"aws:PrincipalArn": [SAVIOURS, "arn:*:iam::*:role/Admin"]}),
        shielding(ArnNotLike={"aws:PrincipalArn": []}),
        shielding(ArnNotLike={"aws:PrincipalArn": "arn:aws:iam::111122223333:role/${aws:PrincipalTag/a}"}),
        shielding(ArnLike={"aws:PrincipalArn": SAVIOURS}),
        shielding(StringNotLike={"aws:PrincipalArn": SAVIOURS}),
        shielding(StringEquals={"aws:PrincipalOrgID": "o-1"}),
        shielding(**{"ForAllValues:StringEquals": TAG_IS_TOUCHED}),
        shielding(**{"ForAnyValue:StringEquals": {"aws:TagKeys": "Xray-Guard-Break-Glass"}}),
        shielding(**{"ForAnyValue:StringEquals": {"aws:RequestTag/x": TAG}}),
        shielding(Null={"aws:TagKeys": "false"}),
    ],
)
def test_what_may_let_somebody_set_the_tag_does_not_count_as_the_break_glass_deny(laxer: dict[str, Any]) -> None:
    assert BREAK_GLASS in missing(laxer)


# --- What could keep X-Ray from the key ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "foreign",
    [
        {},
        {"Action": "*"},
        {"Action": "kms:decrypt"},
        {"Action": ["kms:ScheduleKeyDeletion", "kms:Generate*"]},
        {"Action": "kms:CreateGrant"},
        {"Action": "kms:Describe???"},
        {"Action": "kms:ReEncrypt*"},
        {"Action": None, "NotAction": "kms:Decrypt"},
        {"Action": None, "NotAction": ["iam:*"]},
        {"Action": None},
        {"Principal": {"AWS": ROOT_ARN}},
        {"Principal": {"AWS": ACCOUNT}},
        {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:role/Reader"}},
        {"Principal": {"Service": "xray.amazonaws.com"}},
        {"Principal": {"Service": "xray.us-east-1.amazonaws.com"}},
        {"Principal": {"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:root", "Service": ["xray.amazonaws.com"]}},
        {"Principal": {"Federated": "cognito-identity.amazonaws.com"}},
        {"Principal": None, "NotPrincipal": {"Service": "xray.amazonaws.com"}},
        {"Principal": None},
        {"Resource": None, "NotResource": "arn:x"},
        {"Unknown": 1},
        {"Condition": {"StringNotEquals": {"aws:PrincipalOrgID": "o-1"}}},
        {"Condition": {"StringNotEquals": {"kms:ViaService": VIA_XRAY}}},
        {"Condition": {"StringEquals": {"kms:ViaService": VIA_XRAY}}},
        {"Condition": {"StringLike": {"kms:ViaService": "*"}}},
        {"Condition": {"StringEqualsIfExists": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}}},
        {"Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        {"Condition": {"BoolIfExists": {"aws:SecureTransport": "false"}}},
        {"Condition": {"ArnNotLike": {"aws:PrincipalArn": SAVIOURS}}},
        {"Condition": {"ArnLike": {"aws:PrincipalArn": "arn:*:iam::*:role/Developer"}}},
        {"Condition": {"StringLike": {"aws:PrincipalArn": f"*:{OTHER_ACCOUNT}:*"}}},
        {"Condition": {"ForAllValues:StringEquals": {"aws:TagKeys": TAG}}},
        {"Condition": {"Null": {"aws:TagKeys": "true"}}},
        {"Condition": "x"},
    ],
)
def test_a_deny_that_could_hit_xrays_use_leaves_the_key_unproved(foreign: dict[str, Any]) -> None:
    assert denies(foreign)


@pytest.mark.parametrize(
    "harmless",
    [
        {"Action": "kms:ScheduleKeyDeletion"},
        {"Action": ["kms:DisableKey", "kms:Delete*", "kms:PutKeyPolicy"]},
        {"Action": None, "NotAction": ["kms:*Key*", "KMS:?*crypt*", "kms:CreateGrant"]},
        {"Principal": {"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:role/Reader"}},
        {"Principal": {"AWS": [OTHER_ACCOUNT, f"arn:aws:iam::{OTHER_ACCOUNT}:root"]}},
        {"Principal": {"AWS": "AROAEXAMPLEOFAGONEROLE"}},
        {"Principal": {"Service": "logs.us-east-1.amazonaws.com"}},
        {"Condition": {"Bool": {"aws:SecureTransport": False}}},
        {"Condition": {"StringLike": {"kms:ViaService": ["ec2.*.amazonaws.com", "s3.*"]}}},
        {"Condition": {"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}},
        {"Condition": {"StringLike": {"aws:RequestTag/team": "*"}}},
        {"Condition": {"ArnLike": {"aws:PrincipalArn": f"arn:*:iam::{OTHER_ACCOUNT}:*"}}},
        {"Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}, "Bool": {"aws:SecureTransport": "false"}}},
    ],
)
def test_a_deny_that_certainly_misses_xrays_use_is_no_obstacle(harmless: dict[str, Any]) -> None:
    assert not denies(harmless)


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"kms:ViaService": "${aws:PrincipalTag/service}"}},
        {"StringLike": {"kms:ViaService": ["ec2.*", "${aws:PrincipalTag/service}.amazonaws.com"]}},
        {"ForAnyValue:StringEquals": {"aws:TagKeys": "${aws:PrincipalTag/key}"}},
        {"StringEqualsIfExists": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}},
        {"ArnLikeIfExists": {"aws:PrincipalArn": f"arn:aws:iam::{OTHER_ACCOUNT}:role/x"}},
    ],
)
def test_p13_a_deny_whose_condition_is_known_only_to_the_request_could_hit_x_ray(condition: dict[str, Any]) -> None:
    assert denies({"Condition": condition})


def test_a_foreign_deny_is_described_by_number_name_and_content() -> None:
    deny = {"Sid": "NoReading", "Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*"}

    (answer,) = judge_policy(policy(ROOT_STATEMENT, deny), RULE, TARGET, "aws").foreign_denies
    assert answer == "statement 2 ('NoReading') denies kms:Decrypt to *"


@pytest.mark.parametrize(
    ("deny", "locked_out"),
    [
        (DENY_STATEMENT, False),
        (shielding(ArnNotLike={"aws:PrincipalArn": ["arn:*:iam::*:*"]}), False),
        (shielding(**{"ForAnyValue:StringEquals": {"aws:TagKeys": "other"}}), False),
        (shielding(action="kms:Decrypt"), False),
        (shielding(), True),
        (shielding(ArnNotLike={"aws:PrincipalArn": "arn:*:iam::*:role/FormerBreakGlass"}), True),
    ],
)
def test_a_deny_that_keeps_the_rules_own_people_from_the_tag_is_told_of(deny: object, locked_out: bool) -> None:
    assert bool(judge_policy(policy(*WHOLE, deny), RULE, TARGET, "aws").lockouts) is locked_out


# --- Merging ---------------------------------------------------------------------------------------------------------


def test_all_that_stood_there_stands_there_still_to_the_letter() -> None:
    before = (
        '{"Version":"2008-10-17","Id":"mine \\u00e9","Vendor":{"b":1.50,"a":12345678901234567890},"Statement":[\n'
        '  {"Sid":"Gone","Effect":"Allow","Principal":{"AWS":"AROAEXAMPLEOFAGONEROLE"},"Action":"kms:Decrypt",'
        '"Resource":"*","Later":[true, null]},\n'
        '  {"Sid":"AccountByIam","Effect":"Deny","Principal":"*","Action":"kms:ScheduleKeyDeletion","Resource":"*",'
        '"Condition":{"NumericLessThan":{"kms:ScheduleKeyDeletionPendingWindowInDays":7.0}}}]}'
    )

    after = merge(before, RULE, TARGET, "aws")

    squeezed = "".join(after.split())
    assert squeezed.startswith("".join(before.split())[: -len("]}")])
    assert [each.get("Sid") for each in json.loads(after)["Statement"]] == [
        "Gone",
        "AccountByIam",
        "AccountByIam2",
        "XRayEncryptsTraces",
        "TraceReadersThroughXRay",
        "BreakGlassTag",
    ]


def test_p13_no_statement_is_lost_however_many_there_are() -> None:
    """KMS takes 32 KB, which holds some two hundred statements."""
    theirs = [
        {"Sid": f"S{number}", "Effect": "Allow", "Principal": {"AWS": ROOT_ARN}, "Action": "kms:Get*", "Resource": "*"}
        for number in range(200)
    ]

    after = merge(policy(*theirs), RULE, TARGET, "aws")

    assert json.loads(after)["Statement"][:200] == theirs
    assert judge_policy(after, RULE, TARGET, "aws").missing == ()


def test_a_policy_of_one_statement_outside_a_list_keeps_it() -> None:
    after = merge(json.dumps({"Statement": ROOT_STATEMENT}), RULE, TARGET, "aws")

    assert json.loads(after)["Statement"][0] == ROOT_STATEMENT
    assert judge_policy(after, RULE, TARGET, "aws").proved


def test_a_policy_that_lacks_nothing_is_left_as_it_was_written() -> None:
    text = policy(*reversed(WHOLE)) + "\n\n "

    assert merge(text, RULE, TARGET, "aws") == text


def padded(size: int) -> str:
    """A policy without the wanted statements, of exactly so many bytes without white space."""
    text = json.dumps({"Statement": [{**ROOT_STATEMENT, "Sid": ""}]}, separators=(",", ":"))
    return text.replace('"Sid":""', f'"Sid":"{"é" * ((size - len(text)) // 2)}{"x" * ((size - len(text)) % 2)}"')


def test_a_policy_grows_up_to_what_kms_takes_and_not_a_byte_further() -> None:
    added = len(json.dumps(json.loads(merge(padded(1000), RULE, TARGET, "aws")), separators=(",", ":"))) - len(
        json.dumps(json.loads(padded(1000)), separators=(",", ":"))
    )

    fitting = merge(padded(LONGEST_POLICY_BYTES - added), RULE, TARGET, "aws")

    assert len(fitting.encode()) == LONGEST_POLICY_BYTES
    with pytest.raises(PolicyTooLong, match=str(LONGEST_POLICY_BYTES)):
        merge(padded(LONGEST_POLICY_BYTES - added + 1), RULE, TARGET, "aws")


GARBAGE = [
    "",
    "null",
    "[]",
    "{}",
    '"x"',
    "{",
    '{"Statement": null}',
    '{"Statement": "x"}',
    '{"Statement": [[]]}',
    '{"Statement": [{}]}',
    '{"Statement": [{"Effect": "allow"}]}',
    '{"Statement": [], "Statement": []}',
    '{"Statement": [{"Effect": "Deny", "Effect": "Allow"}]}',
    '{"Statement": [{"Effect": ["Allow"]}]}',
    '{"Statement": [], "x": NaN}',
    '{"Statement": [], "x": "\\ud800"}',
    '{"Statement": [], "x": "\ud800"}',
    '{"Statement": ' + "[" * 100_000,
    '{"x": ' + '{"x": ' * 5000 + "1" + "}" * 5001,
    '{"Statement": [], "x": ' + "9" * 5000 + "}",
    "\ufeff{}",
]


@pytest.mark.parametrize("text", GARBAGE)
def test_what_is_no_policy_is_never_written_over(text: str) -> None:
    verdict = judge_policy(text, RULE, TARGET, "aws")

    assert verdict.problem
    assert verdict.missing == EVERY_NAME
    assert not verdict.proved
    with pytest.raises(UnreadablePolicy):
        merge(text, RULE, TARGET, "aws")


def test_a_difference_shows_what_was_added_and_only_that() -> None:
    before = policy(ROOT_STATEMENT, XRAY_STATEMENT, DENY_STATEMENT)

    lines = difference(before, merge(before, RULE, TARGET, "aws")).splitlines()

    assert any(line.startswith("+") and "kms:ViaService" in line for line in lines)
    assert [line for line in lines if line.startswith("-") and line not in ("--- before", "-    }")] == []
    assert difference(before, json.dumps(json.loads(before), indent=7)) == ""
    assert difference("no policy", "{") != ""


# --- Whatever the policy ---------------------------------------------------------------------------------------------


ROLES = [f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in ("SecurityBreakGlass", "TraceReader", "Developer", "guard")]
ACTIONS = (
    "kms:*",
    "*",
    "kms:Decrypt",
    "KMS:decrypt",
    "kms:Generate*",
    "kms:GenerateDataKey",
    "kms:CreateGrant",
    "kms:DescribeKey",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:*ag*",
    "kms:PutKeyPolicy",
    "kms:ScheduleKeyDeletion",
)
NAMES = (
    "*",
    ACCOUNT,
    ROOT_ARN,
    OTHER_ACCOUNT,
    f"arn:aws:iam::{OTHER_ACCOUNT}:role/TraceReader",
    "AROAEXAMPLEOFAGONEROLE",
    *ROLES,
)
VALUES = {
    "kms:CallerAccount": (ACCOUNT, OTHER_ACCOUNT, "1111*"),
    "kms:ViaService": (VIA_XRAY, "ec2.us-east-1.amazonaws.com", "xray.*", "*"),
    "aws:PrincipalArn": (*ROLES, SAVIOURS, "arn:*:iam::*:role/*", f"arn:*:iam::{OTHER_ACCOUNT}:*", "*", "arn:*"),
    "aws:TagKeys": (TAG, "other", "xray-*", "*"),
    "aws:SecureTransport": ("true", "false"),
    "aws:SourceAccount": (ACCOUNT, OTHER_ACCOUNT),
    "aws:PrincipalOrgID": ("o-1", "o-*"),
}
OPERATORS = (
    "StringEquals",
    "StringNotEquals",
    "StringEqualsIgnoreCase",
    "StringLike",
    "StringNotLike",
    "ArnLike",
    "ArnEquals",
    "ArnNotLike",
    "Bool",
    "Null",
)


def examples(number: int) -> settings:
    # A busy machine is no fault of the guard's, so neither of the two limits on time applies.
    return settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def one_or_more(values: tuple[str, ...] | list[str]) -> st.SearchStrategy[Any]:
    return st.sampled_from(values) | st.lists(st.sampled_from(values), min_size=1, max_size=3)


@st.composite
def condition_blocks(draw: st.DrawFn) -> dict[str, Any]:
    block: dict[str, Any] = {}
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from(list(VALUES)))
        operator = draw(st.sampled_from(OPERATORS))
        if key == "aws:TagKeys" and operator != "Null":
            operator = draw(st.sampled_from(("ForAnyValue:", "ForAnyValue:", "ForAllValues:", ""))) + operator
        if operator != "Null" and draw(st.integers(0, 5)) == 0:
            operator += "IfExists"
        values = ("true", "false") if operator in ("Bool", "Null") else VALUES[key]
        block.setdefault(operator, {})[key] = draw(one_or_more(values))
    return block


PRINCIPALS = st.one_of(
    st.just("*"),
    st.fixed_dictionaries({"AWS": one_or_more(NAMES)}),
    st.fixed_dictionaries({"Service": one_or_more(["xray.amazonaws.com", "logs.amazonaws.com"])}),
    st.fixed_dictionaries({"AWS": one_or_more(NAMES), "Service": one_or_more(["xray.amazonaws.com"])}),
)


@st.composite
def made_statements(draw: st.DrawFn) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": draw(st.sampled_from(["Allow", "Allow", "Deny"]))}
    statement[draw(st.sampled_from(["Principal"] * 6 + ["NotPrincipal"]))] = draw(PRINCIPALS)
    statement[draw(st.sampled_from(["Action"] * 6 + ["NotAction"]))] = draw(one_or_more(ACTIONS))
    statement["Resource"] = draw(st.sampled_from(["*", ["*"], f"arn:aws:kms:us-east-1:{ACCOUNT}:key/*", "arn:x"]))
    condition = draw(condition_blocks())
    if condition:
        statement["Condition"] = condition
    sid = draw(st.sampled_from([None, None, "a", "AccountByIam", "BreakGlassTag", "BreakGlassTag2", ""]))
    if sid is not None:
        statement["Sid"] = sid
    if draw(st.integers(0, 9)) == 0:
        statement[draw(st.sampled_from(["Sid2", "action", "Comment"]))] = draw(st.sampled_from([None, "", "é"]))
    return statement


@st.composite
def twisted_statements(draw: st.DrawFn) -> dict[str, Any]:
    """One of the wanted statements with one part exchanged, so that near misses come up often."""
    statement = dict(draw(st.sampled_from(WHOLE)))
    other = draw(made_statements())
    part = draw(st.sampled_from(["Effect", "Principal", "Action", "Resource", "Condition", "nothing"]))
    if part in other:
        statement[part] = other[part]
    return statement


STATEMENTS = st.lists(made_statements() | twisted_statements(), max_size=6)
DOCUMENTS = st.builds(
    lambda statements, others: {**others, "Statement": statements},
    STATEMENTS | made_statements(),
    st.dictionaries(
        st.sampled_from(["Version", "Id", "X"]), st.text(alphabet='aé"\\', max_size=5) | st.integers() | st.floats(0, 1)
    ),
)
SPELLINGS = st.fixed_dictionaries({"indent": st.sampled_from([None, 0, 3]), "ensure_ascii": st.booleans()})


def listed(document: dict[str, Any]) -> list[dict[str, Any]]:
    statements = document["Statement"]
    return statements if isinstance(statements, list) else [statements]


@examples(200)
@given(DOCUMENTS, SPELLINGS, st.sampled_from(RULES))
def test_P13_merging_loses_nothing_adds_all_and_is_done_at_once(
    document: dict[str, Any], spelling: dict[str, Any], rule: Rule
) -> None:
    text = json.dumps(document, **spelling)

    merged = merge(text, rule, TARGET, "aws")

    read = json.loads(merged)
    before = judge_policy(text, rule, TARGET, "aws")
    after = judge_policy(merged, rule, TARGET, "aws")
    assert {name: value for name, value in read.items() if name != "Statement"} == {
        name: value for name, value in document.items() if name != "Statement"
    }
    assert list(read) == list(document)
    assert listed(read)[: len(listed(document))] == listed(document)
    assert len(listed(read)) == len(listed(document)) + len(before.missing)
    assert after.missing == ()
    assert after.foreign_denies == before.foreign_denies
    assert merge(merged, rule, TARGET, "aws") == merged
    added_sids = [each["Sid"] for each in listed(read)[len(listed(document)) :]]
    assert len({*added_sids, *(each.get("Sid") for each in listed(document))}) == len(added_sids) + len(
        {each.get("Sid") for each in listed(document)}
    )


@examples(100)
@given(STATEMENTS, st.randoms(use_true_random=False), st.sampled_from(RULES))
def test_the_verdict_depends_on_no_order_and_no_spelling(
    statements: list[dict[str, Any]], dice: random.Random, rule: Rule
) -> None:
    def respelled(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            items = [(name, respelled(each, name)) for name, each in value.items()]
            dice.shuffle(items)
            return dict(items)
        if key in ("Effect", "Sid", "Comment", "Sid2", "action"):
            return value
        if isinstance(value, list):
            return dice.sample(value, len(value))
        if value == "*" and key == "Principal":
            return dice.choice(["*", {"AWS": "*"}, {"AWS": ["*"]}])
        if value == ACCOUNT and key == "AWS":
            return [ROOT_ARN, ACCOUNT]
        return dice.choice([value, [value]]) if isinstance(value, str) and key != "Principal" else value

    others = [respelled(statement) for statement in statements]
    dice.shuffle(others)
    before = judge_policy(policy(*statements), rule, TARGET, "aws")
    after = judge_policy(json.dumps({"Statement": others}, indent=dice.choice([None, 4])), rule, TARGET, "aws")

    assert after.missing == before.missing
    assert len(after.foreign_denies) == len(before.foreign_denies)


@examples(100)
@given(st.text(max_size=40) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
@example('{"Statement": [{"Effect": "Allow", "Principal": {"AWS": 1}, "Action": {}, "Condition": []}]}')
def test_P13_no_text_brings_the_guard_down_or_is_overwritten_unread(text: str) -> None:
    verdict = judge_policy(text, RULE, TARGET, "aws")

    if verdict.problem:
        with pytest.raises(UnreadablePolicy):
            merge(text, RULE, TARGET, "aws")
    else:
        assert not judge_policy(merge(text, RULE, TARGET, "aws"), RULE, TARGET, "aws").missing


# --- Against a judge who decides single requests ---------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One request, as IAM's documentation describes the evaluation of a key policy. `who` is an ARN or a service."""

    who: str
    action: str
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def _fits(pattern: str, text: str) -> bool:
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def _arn_fits(pattern: str, arn: str) -> bool:
    wanted, parts = pattern.split(":", 5), arn.split(":", 5)
    return len(wanted) == len(parts) == 6 and all(_fits(*pair) for pair in zip(wanted, parts, strict=True))


def _holds(operator: str, key: str, values: list[str], context: Mapping[str, tuple[str, ...]]) -> bool:
    present = {name.lower(): value for name, value in context.items()}.get(key.lower())
    if operator == "Null":
        return any((each == "true") == (present is None) for each in values)
    quantifier, _, plain = operator.rpartition(":")
    optional = plain.endswith("IfExists")
    plain = plain.removesuffix("IfExists")
    negated = "Not" in plain
    if present is None:
        return optional or (quantifier == "ForAllValues") or (negated and quantifier != "ForAnyValue")
    compare = {
        "StringEquals": lambda want, got: want == got,
        "StringEqualsIgnoreCase": lambda want, got: want.lower() == got.lower(),
        "StringLike": _fits,
        "Bool": lambda want, got: want == got,
        "ArnLike": _arn_fits,
        "ArnEquals": _arn_fits,
    }[plain.replace("Not", "")]
    results = [any(compare(want, got) for want in values) is not negated for got in present]
    return all(results) if quantifier == "ForAllValues" else any(results)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_named(principal: Any, who: str, *, as_deny: bool) -> bool:
    named = {"AWS": "*"} if principal == "*" else principal
    service = not who.startswith("arn:")
    if service:
        return who in _as_list(named.get("Service", [])) or (as_deny and "*" in _as_list(named.get("AWS", [])))
    account = who.split(":")[4]
    names = _as_list(named.get("AWS", []))
    # An Allow to the account lets IAM decide, a Deny to it hits all its principals.
    whole = as_deny and ({account, f"arn:aws:iam::{account}:root"} & set(names))
    return bool("*" in names or who in names or whole)


def _applies(statement: dict[str, Any], request: Request) -> bool:
    as_deny = statement["Effect"] == "Deny"
    if "Principal" in statement:
        named = _is_named(statement["Principal"], request.who, as_deny=as_deny)
    else:
        named = not _is_named(statement["NotPrincipal"], request.who, as_deny=False)
    pattern = statement.get("Action", statement.get("NotAction"))
    acted = any(_fits(each.lower(), request.action.lower()) for each in _as_list(pattern))
    context = {"aws:SecureTransport": ("true",), **request.context}
    if request.who.startswith("arn:"):
        context |= {"aws:PrincipalArn": (request.who,), "kms:CallerAccount": (request.who.split(":")[4],)}
    return (
        named
        and acted is ("Action" in statement)
        and any(_fits(each, f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1234") for each in _as_list(statement["Resource"]))
        and all(
            _holds(operator, key, _as_list(values), context)
            for operator, block in statement.get("Condition", {}).items()
            for key, values in block.items()
        )
    )


def decided(document: dict[str, Any], request: Request) -> tuple[bool, bool]:
    """Whether some statement allows the request, and whether some statement denies it."""
    hits = [each["Effect"] for each in listed(document) if _applies(each, request)]
    return "Allow" in hits, "Deny" in hits


READER, DEVELOPER = ROLES[1], ROLES[2]
THROUGH_XRAY: dict[str, tuple[str, ...]] = {"kms:ViaService": (VIA_XRAY,)}
XRAYS_OWN = [
    Request("xray.amazonaws.com", action, context)
    for action in ("kms:GenerateDataKey", "kms:Decrypt")
    for context in ({}, {"aws:SourceAccount": (ACCOUNT,)}, {"kms:CallerAccount": (ACCOUNT,)})
]
CONFIGURERS = [Request(ROLES[3], action, THROUGH_XRAY) for action in ("kms:CreateGrant", "kms:DescribeKey")]
TAGGERS = [
    Request(who, action, {"aws:TagKeys": tags})
    for who in (DEVELOPER, ROLES[3], ROOT_ARN, f"arn:aws:iam::{OTHER_ACCOUNT}:role/Admin")
    for action in ("kms:TagResource", "kms:UntagResource")
    for tags in ((TAG,), ("other", TAG))
]


@examples(500)
@given(STATEMENTS, st.booleans(), st.sampled_from(RULES))
def test_P13_what_is_proved_by_the_whole_holds_for_each_request(
    statements: list[dict[str, Any]], merged: bool, rule: Rule
) -> None:
    text = policy(*statements)
    text = merge(text, rule, TARGET, "aws") if merged else text
    document = json.loads(text)
    verdict = judge_policy(text, rule, TARGET, "aws")
    denied_to_nobody = not verdict.foreign_denies

    for request in XRAYS_OWN:
        allowed, denied = decided(document, request)
        assert allowed or XRAY in verdict.missing
        assert not (denied and denied_to_nobody), request
    allowed, denied = decided(document, Request(READER, "kms:Decrypt", THROUGH_XRAY))
    assert allowed or READERS in verdict.missing
    assert not (denied and denied_to_nobody)
    for request in CONFIGURERS:
        assert not (decided(document, request)[1] and denied_to_nobody), request
    if ROOT not in verdict.missing:
        assert any(
            each["Effect"] == "Allow" and _is_named(each.get("Principal", {}), ROOT_ARN, as_deny=True)
            for each in listed(document)
        )
    if rule.break_glass and BREAK_GLASS not in verdict.missing:
        for request in TAGGERS:
            assert decided(document, request)[1], request
    if rule.break_glass and not verdict.lockouts:
        for action in ("kms:TagResource", "kms:UntagResource"):
            assert not decided(document, Request(ROLES[0], action, {"aws:TagKeys": (TAG,)}))[1]
