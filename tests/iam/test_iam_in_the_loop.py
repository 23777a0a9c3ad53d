"""Every call that the packaged functions make, judged by the policies that ship with them (P13, P16).

The functions run in the sandbox, which enforces no IAM. A recorder notes each call as AWS would authorize it. Then an
IAM simulator answers, in one process: does the role's policy allow each call, alone and with the organization's and the
tables' policies, and does every grant of the roles have a call that needs it?
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chalicelib.api.operations import OPERATIONS
from chalicelib.domain.reasons import Outcome
from sandbox.gateway import Gateway
from sandbox.server import Sandbox
from sandbox.template import Made, Template
from shipping.__main__ import package as make_package
from tests.component.calling import call
from tests.component.guarded import (
    ALIAS,
    GUARD_ACCOUNT,
    PACKAGE,
    aliased_key,
    dead_letters,
    guarded,
    keys_behind_the_guard,
    other_key,
    records_of,
    setting_of,
)
from tests.iam.recorded import ROLES, Call, Recorder
from tests.iam.simulator import Policy, Question, ask

pytestmark = pytest.mark.usefixtures("simulated")

HOME, LOST_ANSWER, NO_BYPASS = "us-east-1", "eu-west-1", "eu-central-1"
HERE = f"{GUARD_ACCOUNT}/{HOME}"
BREAK_GLASS = f"arn:aws:iam::{GUARD_ACCOUNT}:role/SecurityBreakGlass"
TAG = "xray-guard-break-glass"
END = "20991231T000000Z"
HOUR = 3600.0


@dataclass(frozen=True)
class Recorded:
    """What was called, and the roles' policies as the package deployed them, by the name of the role."""

    recorder: Recorder
    policies: dict[str, Policy]

    def calls_of(self, role: str) -> list[Call]:
        """The calls with a role."""
        return [each for each in self.recorder.calls if each.role.endswith(f":role/{role}")]


class Story:
    """What happens in the account, one scenario after the other; each ends as its name says, or fails."""

    def __init__(self, account: Sandbox, gateway: Gateway) -> None:
        self.account = account
        self.gateway = gateway
        self.kms = account.client("kms")

    def _settle(self) -> None:
        assert self.account.idle(60)

    def _run(self, schedule: str) -> None:
        self.account.run_schedule(schedule)
        self._settle()

    def _later(self) -> None:
        """Let every backoff end, and the scheduled check run."""
        self.account.let_go_by(HOUR)
        self._run("tick")

    def _drift(self) -> None:
        self.account.client("xray").put_encryption_config(Type="NONE")
        self._settle()

    def _is_right(self) -> bool:
        return setting_of(self.account) == {"Type": "KMS", "KeyId": aliased_key(self.account), "Status": "ACTIVE"}

    def an_empty_account_is_swept(self) -> None:
        self._run("sweep")
        assert records_of(self.account, HERE)[-1].reason == "IDLE"

    def a_first_drift_creates_the_key(self) -> None:
        self._drift()
        assert self._is_right()

    def a_drift_with_a_healthy_key(self) -> None:
        self._drift()
        self._later()
        assert self._is_right()

    def a_disabled_key(self) -> None:
        self.kms.disable_key(KeyId=aliased_key(self.account))
        self._settle()
        self._later()
        assert self.kms.describe_key(KeyId=ALIAS)["KeyMetadata"]["KeyState"] == "Enabled"

    def a_key_pending_deletion(self) -> None:
        self.kms.schedule_key_deletion(KeyId=aliased_key(self.account))
        self._settle()
        self._later()
        assert self.kms.describe_key(KeyId=ALIAS)["KeyMetadata"]["KeyState"] == "Enabled"

    def a_key_policy_without_x_ray(self) -> None:
        key = aliased_key(self.account)
        policy = json.loads(self.kms.get_key_policy(KeyId=key)["Policy"])
        policy["Statement"] = policy["Statement"][:1]
        self.kms.put_key_policy(KeyId=key, Policy=json.dumps(policy))
        self._settle()
        self._later()
        assert "xray.amazonaws.com" in self.kms.get_key_policy(KeyId=key)["Policy"]

    def a_rotation_turned_off(self) -> None:
        key = aliased_key(self.account)
        self.kms.disable_key_rotation(KeyId=key)
        self._settle()
        self._later()
        assert self.kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"] is True

    def spans_without_a_key_and_a_link(self) -> None:
        self.account.client("xray").update_trace_segment_destination(Destination="CloudWatchLogs")
        self._settle()
        self._later()
        assert self.account.spans()["key"] == aliased_key(self.account)
        self.account.client("xray").update_trace_segment_destination(Destination="XRay")
        self._settle()

    def an_alias_moved_to_a_key_of_others(self) -> None:
        ours = aliased_key(self.account)
        self.kms.update_alias(AliasName=ALIAS, TargetKeyId=other_key(self.account))
        self._settle()
        self._later()
        assert aliased_key(self.account) == ours

    def a_break_glass_on_the_key(self) -> None:
        kms = self.account.client("kms", role=BREAK_GLASS)
        kms.tag_resource(KeyId=aliased_key(self.account), Tags=[{"TagKey": TAG, "TagValue": f"{END} INC-1"}])
        self._settle()
        self._drift()
        assert records_of(self.account, HERE)[-1].outcome is Outcome.SUPPRESSED
        kms.untag_resource(KeyId=aliased_key(self.account), TagKeys=[TAG])
        self._settle()
        self._later()
        assert self._is_right()

    def a_break_glass_on_a_role(self) -> None:
        iam = self.account.client("iam")
        iam.create_role(RoleName="SecurityBreakGlass", AssumeRolePolicyDocument="{}")
        iam.tag_role(RoleName="SecurityBreakGlass", Tags=[{"Key": TAG, "Value": f"{END} INC-2"}])
        self.account.let_go_by(2.0)  # events have whole seconds, and a tie with the latest check enforces
        self.account.client("xray", role=BREAK_GLASS).put_encryption_config(Type="NONE")
        self._settle()
        assert records_of(self.account, HERE)[-1].outcome is Outcome.SUPPRESSED
        iam.untag_role(RoleName="SecurityBreakGlass", TagKeys=[TAG])
        self._later()
        self._run("sweep")
        assert self._is_right()

    def a_key_whose_creation_got_no_answer(self) -> None:
        self.account.fail("kms", "CreateKey", "InternalFailure", status=500, carried_out=True)
        self._key_in(LOST_ANSWER)

    def a_key_that_may_not_be_created_with_its_policy(self) -> None:
        self.account.fail("kms", "CreateKey", "AccessDeniedException", message="with an explicit deny")
        self._key_in(NO_BYPASS)

    def _key_in(self, region: str) -> None:
        self.account.client("xray", region).put_encryption_config(Type="KMS", KeyId="alias/aws/xray")
        self._run("sweep")
        self._later()
        (key,) = keys_behind_the_guard(self.account, region)
        assert setting_of(self.account, region)["KeyId"] == key

    def the_api_answers_and_takes_a_request(self) -> None:
        incident = next(each.incident_id for each in records_of(self.account, HERE) if each.incident_id)
        dotted = incident.replace("/", ".").replace("#", ".")
        names = {"id": dotted, "account": GUARD_ACCOUNT, "region": HOME}
        for operation in OPERATIONS:
            answer = call(self.gateway, operation.path.format(**names), operation.method)
            assert answer.status == operation.status, answer.body
        for query in ("?actor=administrator", "?outcome=REMEDIATED", f"?target={HERE}"):
            assert call(self.gateway, f"/v1/records{query}").status == 200
        assert self._is_asked_for()
        self._run("tick")
        assert not self._is_asked_for()

    def _is_asked_for(self) -> bool:
        """Whether a request for a check waits for the next tick."""
        key = {"target": {"S": f"ask#{HERE}"}}
        item = self.account.client("dynamodb").get_item(TableName="xray-guard-targets", Key=key)["Item"]
        return "due_at" in item

    def event_history_is_read(self) -> None:
        self._run("event_history")
        assert records_of(self.account, "guard")[-1].reason == "EVENT_HISTORY"

    def an_event_that_cannot_be_stored(self) -> None:
        self.account.fail("dynamodb", "TransactWriteItems", "InternalServerError", status=500, times=10_000)
        self._drift()
        self.account.faults.clear()
        assert dead_letters(self.account)

    def all(self) -> None:
        """Every scenario, in this order."""
        for name, scenario in vars(Story).items():
            if not name.startswith("_") and name != "all":
                scenario(self)


@pytest.fixture(scope="module")
def package(simulated: None) -> Path:
    """The package; a copy of the project has none yet."""
    return PACKAGE if (PACKAGE / "sam.json").is_file() else make_package("dev")


@pytest.fixture(scope="module")
def recorded(package: Path) -> Iterator[Recorded]:
    """The calls of every scenario, and the deployed policies."""
    with (
        guarded(
            package,
            regions=(HOME, LOST_ANSWER, NO_BYPASS),
            parameters={"AnchorBucket": "anchors"},
            clock_behind_seconds=24 * HOUR,
            retry_seconds=(0.05, 0.05),
        ) as account,
        Gateway(account) as gateway,
    ):
        account.client("s3").create_bucket(Bucket="anchors")
        recorder = Recorder(GUARD_ACCOUNT, HOME)
        account.watchers.append(recorder)
        Story(account, gateway).all()
        iam = account.client("iam")
        policies = {}
        for role in ROLES:
            (name,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
            policies[role] = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for function in account.functions:
            gave_up = function.definition.short_name == "on_change"
            assert function.invocations, function.definition.name
            recorder.by_lambda(function.definition.role_arn, function.definition.name, gave_up=gave_up)
        yield Recorded(recorder, policies)


@pytest.fixture(scope="module")
def table_policies(package: Path) -> dict[str, Policy]:
    """The tables' resource policies as the package deploys them, by the table's ARN."""
    document = json.loads((package / "tables.json").read_text("utf-8"))
    pseudo = {"AWS::Partition": "aws", "AWS::AccountId": GUARD_ACCOUNT, "AWS::Region": HOME}
    parameters = {
        "PipelineRole": f"arn:aws:iam::{GUARD_ACCOUNT}:role/InfrastructurePipeline",
        "OperatorRoles": f"arn:aws:iam::{GUARD_ACCOUNT}:role/OnCall",
    }
    template = Template(document, pseudo, Made, parameters)
    tables = [template.resolve(each["Properties"]) for each in template.resources.values()]
    return {
        f"arn:aws:dynamodb:{HOME}:{GUARD_ACCOUNT}:table/{each['TableName']}": each["ResourcePolicy"]["PolicyDocument"]
        for each in tables
    }


Grant = tuple[str, str, str]
"""A role, one of its Allow statements by its Sid, and one of the statement's actions."""


def actions_of(statement: dict[str, Any]) -> list[str]:
    named = statement["Action"]
    return [named] if isinstance(named, str) else named


def grants_of(role: str, policy: Policy) -> list[Grant]:
    return [
        (role, each["Sid"], action)
        for each in policy["Statement"]
        if each["Effect"] == "Allow"
        for action in actions_of(each)
    ]


def without(policy: Policy, sid: str, action: str) -> Policy:
    """The policy without one action of one statement."""
    less = copy.deepcopy(policy)
    for statement in less["Statement"]:
        if statement["Sid"] == sid:
            statement["Action"] = [each for each in actions_of(statement) if each != action]
    less["Statement"] = [each for each in less["Statement"] if each["Action"]]
    return less


@dataclass(frozen=True)
class Verdict:
    """What the simulator answered."""

    alone: dict[Call, str]
    in_the_organization: dict[Call, str]
    lockouts: dict[Call, str]
    dropped: dict[Grant, list[str]]


@pytest.fixture(scope="module")
def verdict(recorded: Recorded, scps: list[Policy], table_policies: dict[str, Policy]) -> Verdict:
    """All answers, from one process."""
    policies, calls = recorded.policies, list(recorded.recorder.calls)
    lockouts = list(recorded.recorder.lockouts)

    def identity(of: Call) -> Policy:
        return policies[of.role.rpartition("/")[2]]

    asked: dict[str, list[tuple[Any, Question]]] = {
        "alone": [(each, each.question(identity(each))) for each in calls],
        "organized": [(each, each.question(identity(each), tuple(scps), table_policies)) for each in calls],
        "lockouts": [(each, each.question(identity(each))) for each in lockouts],
        "dropped": [
            (grant, each.question(without(policies[role], sid, action)))
            for role in ROLES
            for grant in grants_of(role, policies[role])
            for _, sid, action in [grant]
            for each in recorded.calls_of(role)
            if each.action == action
        ],
    }
    answers = iter(ask([question for part in asked.values() for _, question in part]))
    told = {name: [(about, next(answers)) for about, _ in part] for name, part in asked.items()}
    dropped: dict[Grant, list[str]] = {grant: [] for role in ROLES for grant in grants_of(role, policies[role])}
    for grant, answer in told["dropped"]:
        dropped[grant].append(answer)
    return Verdict(dict(told["alone"]), dict(told["organized"]), dict(told["lockouts"]), dropped)


def refused(answers: dict[Call, str]) -> list[tuple[str, str, str, str]]:
    """The calls that are not allowed."""
    return [(each.role, each.action, each.resource, told) for each, told in answers.items() if told != "Allowed"]


def test_every_function_was_at_work(recorded: Recorded) -> None:
    by = {function for functions in recorded.recorder.calls.values() for function in functions}
    assert by == {
        f"xray-guard-{name}" for name in ("on_change", "on_key_change", "tick", "sweep", "event_history", "api")
    }
    assert recorded.recorder.unresolved == {"kms:DescribeKey"}, "only an alias that does not exist yet names no key"


def test_p13_the_roles_own_rights_and_the_key_policy_allow_every_call(verdict: Verdict) -> None:
    assert len(verdict.alone) > 60
    assert refused(verdict.alone) == []


def test_p13_neither_the_organizations_policies_nor_those_of_the_tables_are_in_the_way(verdict: Verdict) -> None:
    assert refused(verdict.in_the_organization) == []


def test_p13_the_guard_may_still_put_the_policy_after_each_policy_that_it_puts(verdict: Verdict) -> None:
    """KMS refuses a policy that takes this from its caller; its check may not know the function that calls."""
    assert len(verdict.lockouts) >= 2
    assert all("lambda:SourceFunctionArn" not in dict(each.context) for each in verdict.lockouts)
    assert refused(verdict.lockouts) == []


def test_p13_no_grant_is_unused_and_without_any_one_of_them_a_call_is_denied(verdict: Verdict) -> None:
    assert len(verdict.dropped) > 30
    unused = [grant for grant, answers in verdict.dropped.items() if not answers]
    needless = [grant for grant, answers in verdict.dropped.items() if answers and set(answers) == {"Allowed"}]
    assert (unused, needless) == ([], [])
