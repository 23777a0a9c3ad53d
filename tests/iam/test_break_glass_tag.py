"""Who may set and remove the break-glass tag, by the key's policy and by the organization's (P14)."""

from __future__ import annotations

import pytest

from chalicelib.domain.policy import Rule
from tests.iam.simulator import ACCOUNT, EVERYTHING, Policy, Question, ask

pytestmark = pytest.mark.usefixtures("simulated")

TAG = "xray-guard-break-glass"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/0a1b2c3d-0000-4000-8000-000000000001"
OUTSIDE = "999988887777"


def role(name: str, account: str = ACCOUNT) -> str:
    return f"arn:aws:iam::{account}:role/{name}"


BREAK_GLASS = role("SecurityBreakGlass")
GUARD = role("xray-guard")
SPELLINGS = (TAG, TAG.upper(), TAG.title(), "Xray-guard-break-glass", "xRAY-GUARD-BREAK-GLASs")


def tagging(action: str, key: str = TAG, *others: str) -> dict[str, str | list[str]]:
    """The context of a request that sets (or removes) these tags."""
    keys = [key, *others]
    sets = action.rpartition(":")[2].startswith(("Tag", "Create", "Replicate"))
    return {
        "aws:TagKeys": keys,
        **({f"aws:RequestTag/{each}": "20261120T180000Z INC-1" for each in keys} if sets else {}),
    }


KEY_MATRIX = [
    # (who, by the key's policy alone, by the organization's alone, by both)
    ("break-glass role", BREAK_GLASS, "Allowed", "Allowed", "Allowed"),
    ("administrator", role("Administrator"), "ExplicitlyDenied", "ExplicitlyDenied", "ExplicitlyDenied"),
    ("developer", role("Developer"), "ExplicitlyDenied", "ExplicitlyDenied", "ExplicitlyDenied"),
    ("the account's root", f"arn:aws:iam::{ACCOUNT}:root", *["ExplicitlyDenied"] * 3),
    ("pipeline", role("InfrastructurePipeline"), *["ExplicitlyDenied"] * 3),
    ("a role of that name under a path", role("team/SecurityBreakGlass"), *["ExplicitlyDenied"] * 3),
    ("a role whose name only begins so", role("SecurityBreakGlass2"), *["ExplicitlyDenied"] * 3),
    ("a user of that name", f"arn:aws:iam::{ACCOUNT}:user/SecurityBreakGlass", *["ExplicitlyDenied"] * 3),
    ("the guard, whatever else it was given", GUARD, *["ExplicitlyDenied"] * 3),
]


@pytest.mark.parametrize(
    ("who", "principal", "by_key", "by_scp", "by_both"), KEY_MATRIX, ids=[m[0] for m in KEY_MATRIX]
)
def test_of_those_who_may_do_everything_only_the_break_glass_role_sets_or_removes_the_tag_of_the_key(
    who: str, principal: str, by_key: str, by_scp: str, by_both: str, key_policy: Policy, scps: list[Policy]
) -> None:
    owner_policy = {**key_policy, "Statement": [each for each in key_policy["Statement"] if each["Effect"] == "Allow"]}
    questions = []
    for action in ("kms:TagResource", "kms:UntagResource"):
        for others in ((), ("team",)):
            context = tagging(action, TAG, *others)
            questions += [
                Question(principal, action, KEY, context, resource_policy=key_policy),
                Question(principal, action, KEY, context, resource_policy=owner_policy, scps=scps),
                Question(principal, action, KEY, context, resource_policy=key_policy, scps=scps),
            ]
    assert ask(questions) == [by_key, by_scp, by_both] * 4, who


def test_nobody_outside_the_organization_sets_it_though_its_policies_do_not_bind_them(key_policy: Policy) -> None:
    questions = [
        Question(role(name, OUTSIDE), action, KEY, tagging(action), resource_policy=key_policy)
        for name in ("SecurityBreakGlass", "Administrator", "xray-guard")
        for action in ("kms:TagResource", "kms:UntagResource")
    ]
    assert "Allowed" not in ask(questions)


def test_the_guard_does_not_set_it_by_its_own_rights_either(guard_rights: Policy, key_policy: Policy) -> None:
    owner_policy = {**key_policy, "Statement": [each for each in key_policy["Statement"] if each["Effect"] == "Allow"]}
    context = tagging("kms:TagResource")
    with_its_own = {**context, "aws:TagKeys": [TAG, "xray-guard"], "aws:RequestTag/xray-guard": "managed"}
    questions = [
        Question(GUARD, "kms:TagResource", KEY, request, identity=identity, resource_policy=owner_policy)
        for request in (context, with_its_own)
        for identity in ([guard_rights], [guard_rights, EVERYTHING])
    ]
    questions += [
        Question(GUARD, "kms:UntagResource", KEY, tagging("kms:UntagResource"), identity=[guard_rights, EVERYTHING])
    ]
    assert ask(questions) == ["ExplicitlyDenied"] * 5


def test_other_tags_of_the_key_are_not_the_key_policys_matter(key_policy: Policy) -> None:
    questions = [
        Question(role("Developer"), "kms:TagResource", KEY, tagging("kms:TagResource", tag), resource_policy=key_policy)
        for tag in ("team", "Xray-Guard-Break-Glass")
    ]
    assert ask(questions) == ["Allowed"] * 2


def test_a_key_cannot_be_made_with_the_tag_where_the_organization_forbids_it(scps: list[Policy]) -> None:
    context = tagging("kms:CreateKey")
    principals = (role("Developer"), role("Administrator"), GUARD)
    questions = [Question(who, "kms:CreateKey", "*", context, scps=scps) for who in principals]
    questions += [Question(who, "kms:TagResource", KEY, context, scps=scps) for who in principals]
    assert ask(questions) == ["ExplicitlyDenied"] * len(questions)


IAM_TAGGING = [
    ("iam:TagRole", BREAK_GLASS),
    ("iam:UntagRole", BREAK_GLASS),
    ("iam:TagRole", role("Developer")),
    ("iam:UntagRole", role("Developer")),
    ("iam:CreateRole", role("New")),
    ("iam:TagUser", f"arn:aws:iam::{ACCOUNT}:user/anna"),
    ("iam:UntagUser", f"arn:aws:iam::{ACCOUNT}:user/anna"),
    ("iam:CreateUser", f"arn:aws:iam::{ACCOUNT}:user/new"),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_tag_of_a_role_or_user_is_for_the_break_glass_role_alone_in_every_case_of_its_name(
    spelling: str, scps: list[Policy]
) -> None:
    others = (role("Administrator"), role("Developer"), GUARD, role("InfrastructurePipeline"))
    questions = [
        Question(who, action, resource, tagging(action, spelling, "team"), scps=scps)
        for who in others
        for action, resource in IAM_TAGGING
    ]
    assert ask(questions) == ["ExplicitlyDenied"] * len(questions)
    own = [
        Question(BREAK_GLASS, action, BREAK_GLASS, tagging(action, spelling), scps=scps)
        for action in ("iam:TagRole", "iam:UntagRole")
    ]
    assert ask(own) == ["Allowed", "Allowed"]


def test_other_tags_of_roles_and_users_stay_everybodys(scps: list[Policy]) -> None:
    questions = [
        Question(
            role("Developer"), action, resource, tagging(action, "team", "xray-guard-break-glass-notes"), scps=scps
        )
        for action, resource in IAM_TAGGING
        if "Create" not in action
    ]
    assert ask(questions) == ["Allowed"] * len(questions)


def test_the_organizations_policy_names_the_tag_and_the_alias_of_the_rule_and_those_it_lets_open(
    rule: Rule, scps: list[Policy]
) -> None:
    assert rule.break_glass is not None
    statements = {each["Sid"]: each for scp in scps for each in scp["Statement"]}
    tags = [
        statements["BreakGlassTagOfKeys"]["Condition"]["ForAnyValue:StringEquals"]["aws:TagKeys"],
        statements["BreakGlassTagOfPrincipals"]["Condition"]["ForAnyValue:StringEqualsIgnoreCase"]["aws:TagKeys"],
    ]
    assert tags == [rule.break_glass.tag] * 2
    for sid in ("BreakGlassTagOfKeys", "BreakGlassTagOfPrincipals"):
        assert (statements[sid]["Condition"]["ArnNotLike"]["aws:PrincipalArn"],) == rule.break_glass.principals
    assert statements["AliasOfManagedKeys"]["Resource"] == f"arn:*:kms:*:*:{rule.managed_key.alias}"
