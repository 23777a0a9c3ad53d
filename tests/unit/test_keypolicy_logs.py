"""CloudWatch Logs' statement: which policies say it, which may deny it, and that adding it loses nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.domain.keypolicy.judge import judge_for_logs, judge_policy
from chalicelib.domain.keypolicy.openness import open_statements
from chalicelib.domain.keypolicy.wanted import LOGS, initial_policy, logs_statement, merge, with_statements
from tests.unit.test_decide import POLICY, RULE, TARGET

CONTEXT = "kms:EncryptionContext:aws:logs:arn"
GROUP = "arn:aws:logs:eu-west-1:111122223333:log-group:aws/spans"
OURS = logs_statement(TARGET, "aws")


def with_logs(**changes: Any) -> str:
    """The guard's policy with CloudWatch Logs' statement, of which some elements are changed."""
    document = json.loads(POLICY)
    return json.dumps({**document, "Statement": [*document["Statement"], {**OURS.statement, **changes}]})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Condition": {}},
        {"Condition": {"ArnLike": {CONTEXT: "arn:aws:logs:eu-west-1:111122223333:*"}}},
        {"Condition": {"StringEquals": {CONTEXT: [GROUP, "another"]}}},
        {"Action": "kms:*"},
        {"Principal": {"Service": ["ec2.amazonaws.com", "logs.eu-west-1.amazonaws.com"]}},
        {"Principal": {"Service": "logs.eu-west-1.amazonaws.com.cn"}},
    ],
)
def test_a_policy_says_it_in_whatever_words(changes: dict[str, Any]) -> None:
    assert judge_for_logs(with_logs(**changes), TARGET, "aws").complete


@pytest.mark.parametrize(
    "changes",
    [
        {"Action": ["kms:Encrypt*", "kms:Decrypt*"]},
        {"Principal": {"Service": "logs.us-east-1.amazonaws.com"}},
        {"Principal": {"Service": "logs.amazonaws.com"}},
        {"Principal": {"AWS": "*"}},
        {"Effect": "Deny"},
        {"Condition": {"ArnEquals": {CONTEXT: f"{GROUP}-not"}}},
        {"Condition": {"ArnEquals": {CONTEXT: GROUP}, "StringEquals": {"aws:SourceAccount": "111122223333"}}},
        {"Resource": "arn:aws:kms:eu-west-1:111122223333:key/another"},
    ],
)
def test_p13_in_doubt_a_policy_does_not_say_it(changes: dict[str, Any]) -> None:
    verdict = judge_for_logs(with_logs(**changes), TARGET, "aws")
    assert verdict.missing == (LOGS,)


@pytest.mark.parametrize(
    ("deny", "denied"),
    [
        ({"Principal": {"Service": "logs.eu-west-1.amazonaws.com"}}, True),
        ({"Principal": "*"}, True),
        ({"Principal": {"Service": "xray.amazonaws.com"}}, False),
        ({"Principal": {"AWS": "arn:aws:iam::444455556666:root"}}, False),
        ({"Principal": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}, False),
        ({"Principal": "*", "Condition": {"StringEquals": {"kms:ViaService": "xray.eu-west-1.amazonaws.com"}}}, False),
        ({"Principal": "*", "Condition": {"StringEquals": {"kms:ViaService": "logs.eu-west-1.amazonaws.com"}}}, True),
    ],
)
def test_p13_a_deny_that_could_affect_logs_is_named_and_one_that_affects_only_x_ray_is_not(
    deny: dict[str, Any], denied: bool
) -> None:
    document = json.loads(with_logs())
    document["Statement"].append({"Effect": "Deny", "Action": "kms:Decrypt", "Resource": "*", **deny})
    assert bool(judge_for_logs(json.dumps(document), TARGET, "aws").foreign_denies) is denied


def test_p13_x_rays_proof_never_asks_for_logs_statement_nor_does_its_deny_of_logs_count_there() -> None:
    assert judge_policy(POLICY, RULE, TARGET, "aws").complete
    document = json.loads(POLICY)
    deny = {"Effect": "Deny", "Principal": {"Service": "logs.eu-west-1.amazonaws.com"}, "Action": "*", "Resource": "*"}
    document["Statement"].append(deny)
    assert judge_policy(json.dumps(document), RULE, TARGET, "aws").proved


def test_p13_adding_it_keeps_every_statement_and_both_merges_keep_each_others() -> None:
    theirs = {"Sid": "CloudWatchLogsEncryptsSpans", "Effect": "Allow", "Principal": {"AWS": "1" * 12}, "Action": "a:b"}
    before = json.dumps({"Version": "2012-10-17", "Statement": [{**theirs, "Resource": "*"}]})
    once = with_statements(before, (OURS,))
    both = merge(once, RULE, TARGET, "aws")
    assert json.loads(both)["Statement"][:2] == json.loads(once)["Statement"]
    assert json.loads(once)["Statement"][:1] == json.loads(before)["Statement"]
    assert len({each["Sid"] for each in json.loads(both)["Statement"]}) == len(json.loads(both)["Statement"])
    assert judge_for_logs(both, TARGET, "aws").complete
    assert judge_policy(both, RULE, TARGET, "aws").complete
    assert with_statements(both, (OURS,)) == both


def test_the_statement_opens_the_key_to_nobody_and_names_the_partitions_own_service() -> None:
    assert open_statements(with_logs(), TARGET) == ()
    assert logs_statement(TARGET, "aws-us-gov").statement["Principal"] == {"Service": "logs.eu-west-1.amazonaws.com"}
    china = logs_statement(TARGET, "aws-cn")
    assert china.statement["Principal"] == {"Service": "logs.eu-west-1.amazonaws.com.cn"}
    assert china.statement["Condition"]["ArnEquals"][CONTEXT].startswith("arn:aws-cn:logs:")


def test_an_unreadable_policy_lacks_it_and_says_why() -> None:
    verdict = judge_for_logs("not a policy", TARGET, "aws")
    assert (verdict.missing, verdict.complete) == ((LOGS,), False)
    assert verdict.problem


def test_a_new_keys_policy_does_not_have_it() -> None:
    assert LOGS in judge_for_logs(initial_policy(RULE, TARGET, "aws"), TARGET, "aws").missing
