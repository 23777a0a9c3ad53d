"""The simulation's fakes and the real adapters over moto, held to one suite of what the ports promise.

The same suite runs against both, so that what holds in the simulation holds of the adapters; and
`test_kms.py` and `test_encryption_setting.py` hold moto itself to what AWS does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest
from moto import mock_aws
from moto.kms.models import kms_backends
from msgspec.structs import replace

import sandbox.additions  # noqa: F401 - its import is what adds
from chalicelib.auditlog import hashchain
from chalicelib.auditlog.chaincheck import verify_chain
from chalicelib.auditlog.draft import Draft, State
from chalicelib.auditlog.keyrows import UPGRADED
from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.kms import KeysApi
from chalicelib.aws.logreads import LogStore
from chalicelib.aws.logs import SpanLogsApi
from chalicelib.aws.xray import XRayApi
from chalicelib.domain.errors import AwsError, Conflict, FormatTooNew, KeyNotOnRecord, StateEdited
from chalicelib.domain.formats import FORMAT
from chalicelib.domain.keypolicy.wanted import initial_policy, logs_statement, with_statements
from chalicelib.domain.model import EncryptionStatus, EncryptionType, Setting, Target, Trigger, TriggerKind
from chalicelib.domain.ports import Keys, SpanLogs, Store, XRay
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.spans import IN_LOGS, LogGroup
from chalicelib.domain.stored import GUARD_CHAIN, Cause, GuardState, Incident, Intent, Lease, Phase, TargetState
from sandbox.keys import delete_key, set_key_state
from sandbox.knobs import KNOBS
from sandbox.spans import change_destination
from sandbox.tracing import seed_services
from tests.simulation.fakes import FakeKeys, FakeLogs, FakeStore, FakeXRay, Tables
from tests.simulation.lambdas import baseline
from tests.simulation.still import Still
from tests.simulation.world import ALICE, HOME, Run

PROJECT = Path(__file__).parents[2]
REGION = "us-east-1"
MOTO = Target("123456789012", REGION)
FOREIGN = Target("444455556666", REGION)
ALIAS = "alias/xray-encryption"
OTHER_ALIAS = "alias/other"
MODELS = botocore.loaders.create_loader()
BARE = {"Version": "2012-10-17"}


@dataclass
class Ports:
    """One implementation of the ports in an empty account, and what only a user or KMS itself can do there."""

    target: Target
    xray: XRay
    keys: Keys
    store: Store
    rows: Callable[[str], list[hashchain.StoredRow]]
    settle: Callable[[], None]
    set_state: Callable[[str, str], None]
    delete: Callable[[str], None]
    asymmetric_key: Callable[[], str]
    foreign_key: Callable[[], str]
    uses_x_ray: Callable[[], None]
    unmark: Callable[[str], None]
    logs: SpanLogs
    sends_spans: Callable[[str | None], object]

    @property
    def policy(self) -> str:
        """A key policy with all that the rule asks."""
        rule = baseline().rule_for(self.target)
        assert rule is not None
        return initial_policy(rule, self.target, "aws")

    def make(self, *tags: tuple[str, str]) -> str:
        """A new key's ARN."""
        key, _ = self.keys.create("X-Ray trace encryption", self.policy, tags or (("xray-guard", "managed"),))
        return key.arn

    def in_state(self, state: str) -> str:
        """A key's ARN that is in this state."""
        arn = self.make()
        if state == "Gone":
            self.delete(arn)
        elif state != "Enabled":
            self.set_state(arn, state)
        return arn


def fakes() -> Iterator[Ports]:
    world, run, tables = Still(settling=lambda rng: 5.0), Run("contract", "contract"), Tables()
    foreign = FakeKeys(world, run, FOREIGN)

    def settle() -> None:
        world.now += 10.0

    def delete(arn: str) -> None:
        kms = world.place(HOME).kms
        world.set_kms(HOME, type(kms)({key: kms.keys[key] for key in kms.keys if key != arn}, kms.aliases))

    def uses_x_ray() -> None:
        world.place(HOME).in_use = True

    world.place(HOME).in_use = False
    yield Ports(
        target=HOME,
        xray=FakeXRay(world, run, HOME),
        keys=FakeKeys(world, run, HOME),
        store=FakeStore(world, run, tables),
        rows=lambda target: tables.rows.get(target, []),
        settle=settle,
        set_state=lambda arn, state: world.user_changes_key(HOME, arn, state=state),
        delete=delete,
        asymmetric_key=lambda: world.user_makes_key(HOME, spec="RSA_2048", usage="ENCRYPT_DECRYPT"),
        foreign_key=lambda: foreign.create("theirs", json.dumps({**BARE, "Statement": [{}]}), ())[0].arn,
        uses_x_ray=uses_x_ray,
        unmark=lambda target: tables.keys.__delitem__((target, UPGRADED)),
        logs=FakeLogs(world, run, HOME),
        sends_spans=lambda key: world.user_sends_spans(HOME, key_arn=key),
    )


def adapters() -> Iterator[Ports]:
    KNOBS.reset()
    KNOBS.turn({"settle_seconds": 0.0})
    with mock_aws():
        session = botocore.session.Session()
        session.register_component("data_loader", MODELS)
        clients = Clients(session)
        raw = boto3.Session(botocore_session=session)
        kms, dynamodb = raw.client("kms", REGION), raw.client("dynamodb", REGION)
        store = LogStore(clients, REGION, AwsClock(), *_tables(dynamodb))

        def set_state(arn: str, state: str) -> None:
            if state == "Disabled":
                kms.disable_key(KeyId=arn)
            elif state == "PendingDeletion":
                kms.schedule_key_deletion(KeyId=arn)
            else:
                set_key_state(arn, state)

        def unmark(target: str) -> None:
            key = {"target": {"S": target}, "sk": {"S": UPGRADED}}
            dynamodb.delete_item(TableName="xray-guard-audit", Key=key)

        def asymmetric() -> str:
            made = kms.create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
            return str(made["KeyMetadata"]["Arn"])

        def foreign() -> str:
            made = kms_backends[FOREIGN.account][REGION].create_key(
                policy=None,
                key_usage="ENCRYPT_DECRYPT",
                key_spec="SYMMETRIC_DEFAULT",
                description="theirs",
                tags=None,
                multi_region=False,
            )
            return str(made.arn)

        yield Ports(
            target=MOTO,
            xray=XRayApi(clients, REGION),
            keys=KeysApi(clients, REGION),
            store=store,
            rows=lambda target: list(store.rows(target)),
            settle=lambda: None,
            set_state=set_state,
            delete=delete_key,
            asymmetric_key=asymmetric,
            foreign_key=foreign,
            uses_x_ray=lambda: seed_services(MOTO.account, REGION, ("shop",)),
            unmark=unmark,
            logs=SpanLogsApi(clients, REGION),
            sends_spans=lambda key: change_destination(MOTO.account, REGION, IN_LOGS, key),
        )
    KNOBS.reset()


def _tables(dynamodb: Any) -> tuple[str, str]:
    """The two tables as they ship; answers the names of audit and targets."""
    resources = json.loads((PROJECT / ".chalice" / "tables.json").read_text("utf-8"))["Resources"]
    names = []
    for resource in resources.values():
        if resource.get("Type") == "AWS::DynamoDB::Table":
            known = {
                name: resource["Properties"][name]
                for name in (
                    "TableName",
                    "AttributeDefinitions",
                    "KeySchema",
                    "GlobalSecondaryIndexes",
                    "BillingMode",
                )
            }
            dynamodb.create_table(**known)
            names.append(known["TableName"])
    audit, targets = sorted(names)
    return audit, targets


@pytest.fixture(params=[fakes, adapters], ids=["fakes", "adapters over moto"])
def ports(request: pytest.FixtureRequest) -> Iterator[Ports]:
    yield from request.param()


def refusal(call: Callable[[], object]) -> str:
    """The code that the call is refused with."""
    with pytest.raises(AwsError) as caught:
        call()
    return caught.value.code


# --- X-Ray -----------------------------------------------------------------------------------------------------------


def test_an_account_that_was_never_set_answers_none_without_a_key(ports: Ports) -> None:
    setting = ports.xray.get()
    assert (setting.type, setting.key_arn, setting.status) == (EncryptionType.NONE, None, EncryptionStatus.ACTIVE)


def test_a_put_answers_updating_with_the_keys_arn_and_becomes_active(ports: Ports) -> None:
    arn = ports.make()
    answer, request_id = ports.xray.put(arn)
    assert answer == Setting(EncryptionType.KMS, arn, EncryptionStatus.UPDATING)
    assert request_id
    ports.settle()
    assert ports.xray.get() == Setting(EncryptionType.KMS, arn, EncryptionStatus.ACTIVE)


@pytest.mark.parametrize("state", ["Disabled", "PendingDeletion", "Unavailable", "Gone"])
def test_x_ray_refuses_a_key_it_could_not_use_and_keeps_its_setting(ports: Ports, state: str) -> None:
    good = ports.make()
    ports.xray.put(good)
    assert refusal(lambda: ports.xray.put(ports.in_state(state))) == "InvalidRequestException"
    assert ports.xray.get().key_arn == good


def test_x_ray_refuses_an_asymmetric_key(ports: Ports) -> None:
    assert refusal(lambda: ports.xray.put(ports.asymmetric_key())) == "InvalidRequestException"
    assert ports.xray.get().type is EncryptionType.NONE


def test_x_ray_is_in_use_where_its_service_graph_names_a_service(ports: Ports) -> None:
    now = datetime.now(UTC) + timedelta(seconds=5)
    assert ports.xray.in_use(now) is False
    ports.uses_x_ray()
    assert ports.xray.in_use(now) is True


# --- spans -----------------------------------------------------------------------------------------------------------


def usable_by_logs(ports: Ports) -> str:
    """A key's ARN whose policy lets CloudWatch Logs use it for the log group of the spans."""
    arn = ports.make()
    ports.keys.put_policy(arn, with_statements(ports.policy, (logs_statement(ports.target, "aws"),)))
    return arn


def test_spans_are_with_the_traces_until_a_user_sends_them_to_cloudwatch_logs(ports: Ports) -> None:
    assert ports.xray.spans_destination() == ("XRay", "ACTIVE")
    assert ports.logs.group() is None
    ports.sends_spans(None)
    assert ports.xray.spans_destination()[0] == IN_LOGS
    assert ports.logs.group() == LogGroup(None, None)


def test_a_key_is_shown_as_soon_as_it_is_associated_and_another_one_replaces_it(ports: Ports) -> None:
    ports.sends_spans(None)
    for arn in (usable_by_logs(ports), usable_by_logs(ports)):
        assert ports.logs.associate(arn)
        assert ports.logs.group() == LogGroup(arn, None)


def test_a_log_group_that_does_not_exist_gets_no_key(ports: Ports) -> None:
    arn = usable_by_logs(ports)
    assert refusal(lambda: ports.logs.associate(arn)) == "ResourceNotFoundException"


@pytest.mark.parametrize("state", ["Disabled", "PendingDeletion", "Gone", "closed to CloudWatch Logs", "asymmetric"])
def test_cloudwatch_logs_refuses_a_key_that_it_could_not_use_and_keeps_its_own(ports: Ports, state: str) -> None:
    ports.sends_spans(None)
    good = usable_by_logs(ports)
    ports.logs.associate(good)
    if state == "asymmetric":
        bad = ports.asymmetric_key()
    elif state == "closed to CloudWatch Logs":
        bad = ports.make()
    else:
        bad = usable_by_logs(ports)
        ports.delete(bad) if state == "Gone" else ports.set_state(bad, state)
    assert refusal(lambda: ports.logs.associate(bad)) in ("InvalidParameterException", "AccessDeniedException")
    assert ports.logs.group() == LogGroup(good, None)


# --- keys: reads -----------------------------------------------------------------------------------------------------


def test_a_key_is_described_by_arn_id_and_alias_alike(ports: Ports) -> None:
    arn = ports.make()
    ports.keys.create_alias(ALIAS, arn)
    described = ports.keys.describe(arn)
    assert described is not None
    assert (described.arn, described.state, described.manager) == (arn, "Enabled", "CUSTOMER")
    assert (described.spec, described.usage, described.origin) == ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "AWS_KMS")
    assert (described.account, described.region) == (ports.target.account, ports.target.region)
    assert ports.keys.describe(ALIAS) == described
    assert ports.keys.describe(arn.rsplit("/", 1)[-1]) == described


def test_describing_tells_neither_policy_nor_rotation_nor_tags(ports: Ports) -> None:
    described = ports.keys.describe(ports.make())
    assert described is not None
    assert (described.policy, described.rotation, described.rotation_days, described.tags) == (None, None, None, None)


def test_what_does_not_exist_is_described_as_none(ports: Ports) -> None:
    assert ports.keys.describe(ALIAS) is None
    assert ports.keys.describe(ports.in_state("Gone")) is None


def test_a_key_of_another_account_is_described_and_no_more(ports: Ports) -> None:
    arn = ports.foreign_key()
    described = ports.keys.describe(arn)
    assert described is not None
    assert described.account == FOREIGN.account
    for call in (ports.keys.policy, ports.keys.tags, ports.keys.enable):
        assert refusal(partial(call, arn)) == "AccessDeniedException"


@pytest.mark.parametrize("state", ["Enabled", "Disabled", "PendingDeletion"])
def test_policy_rotation_and_tags_are_told_in_every_state(ports: Ports, state: str) -> None:
    arn = ports.in_state(state)
    assert json.loads(ports.keys.policy(arn)) == json.loads(ports.policy)
    assert ports.keys.rotation(arn) == (False, None)
    assert ports.keys.tags(arn) == (("xray-guard", "managed"),)


def test_an_asymmetric_key_tells_no_rotation(ports: Ports) -> None:
    assert refusal(lambda: ports.keys.rotation(ports.asymmetric_key())) == "UnsupportedOperationException"


LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2200, 1, 1, tzinfo=UTC)


def test_a_key_is_found_by_its_tag_and_absence_is_none(ports: Ports) -> None:
    ports.make(("xray-guard-nonce", "one"))
    arn = ports.make(("xray-guard-nonce", "two"))
    assert ports.keys.find_by_tag("xray-guard-nonce", "two", LONG_AGO) == arn
    assert ports.keys.find_by_tag("xray-guard-nonce", "three", LONG_AGO) is None


def test_a_key_made_before_the_search_began_to_matter_is_not_the_one(ports: Ports) -> None:
    ports.make(("xray-guard-nonce", "one"))
    assert ports.keys.find_by_tag("xray-guard-nonce", "one", FAR_AHEAD) is None


# --- keys: mutations -------------------------------------------------------------------------------------------------


def test_a_new_key_is_enabled_with_its_policy_and_tags_and_without_rotation(ports: Ports) -> None:
    tags = (("purpose", "xray-encryption"), ("xray-guard", "managed"))
    key, request_id = ports.keys.create("X-Ray trace encryption", ports.policy, tags)
    assert (key.state, key.description, bool(request_id)) == ("Enabled", "X-Ray trace encryption", True)
    assert json.loads(ports.keys.policy(key.arn)) == json.loads(ports.policy)
    assert sorted(ports.keys.tags(key.arn)) == sorted(tags)
    assert ports.keys.rotation(key.arn) == (False, None)


@pytest.mark.parametrize("policy", ["{}", "no policy", '{"Statement": 5}'])
def test_a_malformed_policy_is_refused_and_nothing_is_made_or_changed(ports: Ports, policy: str) -> None:
    tag = ("xray-guard-nonce", "refused")
    assert refusal(lambda: ports.keys.create("", policy, (tag,))) == "MalformedPolicyDocumentException"
    assert ports.keys.find_by_tag(*tag, LONG_AGO) is None
    arn = ports.make()
    assert refusal(lambda: ports.keys.put_policy(arn, policy)) == "MalformedPolicyDocumentException"
    assert json.loads(ports.keys.policy(arn)) == json.loads(ports.policy)


def test_a_policy_that_was_put_is_told_as_it_was_put(ports: Ports) -> None:
    arn = ports.make()
    document = json.loads(ports.policy)
    document["Id"] = "another"
    ports.keys.put_policy(arn, json.dumps(document))
    assert json.loads(ports.keys.policy(arn)) == document


INVALID = "KMSInvalidStateException"
REFUSALS: dict[tuple[str, str], str | None] = {
    ("cancel_deletion", "Enabled"): INVALID,
    ("cancel_deletion", "Disabled"): INVALID,
    ("cancel_deletion", "PendingDeletion"): None,
    ("cancel_deletion", "Unavailable"): INVALID,
    ("create_alias", "Enabled"): None,
    ("create_alias", "Disabled"): None,
    ("create_alias", "PendingDeletion"): INVALID,
    ("update_alias", "Enabled"): None,
    ("update_alias", "Disabled"): None,
    ("update_alias", "PendingDeletion"): INVALID,
    ("enable", "Enabled"): None,
    ("enable", "Disabled"): None,
    ("enable", "PendingDeletion"): INVALID,
    ("enable", "Unavailable"): None,
    ("enable_rotation", "Enabled"): None,
    ("enable_rotation", "Disabled"): "DisabledException",
    ("enable_rotation", "PendingDeletion"): INVALID,
    ("put_policy", "Enabled"): None,
    ("put_policy", "Disabled"): None,
    ("put_policy", "PendingDeletion"): None,
    **{
        (operation, "Gone"): "NotFoundException"
        for operation in (
            "cancel_deletion",
            "create_alias",
            "update_alias",
            "enable",
            "enable_rotation",
            "put_policy",
            "policy",
            "rotation",
            "tags",
        )
    },
}


def attempt(ports: Ports, operation: str, arn: str) -> object:
    """Send the operation about the key."""
    calls: dict[str, Callable[[], object]] = {
        "cancel_deletion": lambda: ports.keys.cancel_deletion(arn),
        "create_alias": lambda: ports.keys.create_alias(ALIAS, arn),
        "update_alias": lambda: ports.keys.update_alias(OTHER_ALIAS, arn),
        "enable": lambda: ports.keys.enable(arn),
        "enable_rotation": lambda: ports.keys.enable_rotation(arn, 365),
        "put_policy": lambda: ports.keys.put_policy(arn, ports.policy),
        "policy": lambda: ports.keys.policy(arn),
        "rotation": lambda: ports.keys.rotation(arn),
        "tags": lambda: ports.keys.tags(arn),
    }
    return calls[operation]()


@pytest.mark.parametrize(("operation", "state"), REFUSALS)
def test_each_operation_is_refused_in_the_states_in_which_kms_refuses_it(
    ports: Ports, operation: str, state: str
) -> None:
    ports.keys.create_alias(OTHER_ALIAS, ports.make())
    arn = ports.in_state(state)
    expected = REFUSALS[operation, state]
    if expected is None:
        attempt(ports, operation, arn)
    else:
        assert refusal(lambda: attempt(ports, operation, arn)) == expected


@pytest.mark.parametrize(
    ("state", "operation", "becomes"),
    [
        ("Disabled", "enable", "Enabled"),
        ("PendingDeletion", "cancel_deletion", "Disabled"),
        ("Unavailable", "enable", "Unavailable"),
    ],
)
def test_a_repair_leaves_the_key_in_the_state_that_kms_says(
    ports: Ports, state: str, operation: str, becomes: str
) -> None:
    arn = ports.in_state(state)
    attempt(ports, operation, arn)
    described = ports.keys.describe(arn)
    assert described is not None
    assert described.state == becomes


def test_rotation_turns_on_with_the_period_that_was_asked(ports: Ports) -> None:
    arn = ports.make()
    ports.keys.enable_rotation(arn, 180)
    assert ports.keys.rotation(arn) == (True, 180)


@pytest.mark.parametrize("days", [89, 2561])
def test_a_period_that_kms_does_not_know_is_refused(ports: Ports, days: int) -> None:
    arn = ports.make()
    # What is too short for KMS's model is refused by the client already.
    code = refusal(lambda: ports.keys.enable_rotation(arn, days))
    assert code in ("ValidationException", "ParamValidationError")
    assert ports.keys.rotation(arn) == (False, None)


def test_an_asymmetric_key_does_not_rotate(ports: Ports) -> None:
    arn = ports.asymmetric_key()
    assert refusal(lambda: ports.keys.enable_rotation(arn, 365)) == "UnsupportedOperationException"


def test_an_alias_that_exists_is_not_made_again_and_keeps_its_key(ports: Ports) -> None:
    first, second = ports.make(), ports.make()
    ports.keys.create_alias(ALIAS, first)
    assert refusal(lambda: ports.keys.create_alias(ALIAS, second)) == "AlreadyExistsException"
    described = ports.keys.describe(ALIAS)
    assert described is not None
    assert described.arn == first


def test_an_alias_is_moved_and_one_that_does_not_exist_is_not(ports: Ports) -> None:
    first, second = ports.make(), ports.make()
    assert refusal(lambda: ports.keys.update_alias(ALIAS, second)) == "NotFoundException"
    ports.keys.create_alias(ALIAS, first)
    ports.keys.update_alias(ALIAS, second)
    described = ports.keys.describe(ALIAS)
    assert described is not None
    assert described.arn == second


# --- the store -------------------------------------------------------------------------------------------------------

AT = datetime(2026, 11, 20, 12, 0, 0, 250000, tzinfo=UTC)
NAME = "111122223333/us-east-1"


def full_state() -> TargetState:
    """A state that has something in every corner."""
    setting = Setting(EncryptionType.KMS, "arn:aws:kms:us-east-1:111122223333:key/k", EncryptionStatus.UPDATING)
    cause = Cause("event", AT, ALICE)
    incident = Incident(
        f"{NAME}#1",
        AT,
        Setting(EncryptionType.NONE),
        Phase.ACTING,
        (Violation.NOT_KMS,),
        attempt=2,
        lease=Lease("worker", 7, AT + timedelta(minutes=2)),
        due=AT + timedelta(minutes=2),
        cause=cause,
        unended=True,
    )
    return TargetState(
        NAME,
        setting=setting,
        outcome=Outcome.REMEDIATING,
        violations=(Violation.NOT_KMS,),
        incident=incident,
        intent=Intent("nonce", AT + timedelta(minutes=6)),
        recheck_at=AT + timedelta(hours=1),
        keys_made=("a", "b"),
    )


def drafted(before: State, *, records: int = 1, event_id: str | None = None, **changes: object) -> Draft[State]:
    """The next version of a state, with so many records."""
    draft = Draft(before)
    for _ in range(records):
        draft.add(AT, Outcome.IGNORED, Trigger(TriggerKind.CHANGE, event_id=event_id), reason="CONTRACT")
    draft.set(version=before.version + 1, **changes)
    return draft


def stored(store: Store, draft: Draft[State], event_id: str | None = None) -> State:
    store.commit(draft.before, draft.after, draft.records, event_id)
    return draft.after


def test_a_target_never_seen_has_a_state_of_version_0_and_no_record(ports: Ports) -> None:
    loaded = ports.store.load(NAME, "event")
    assert (loaded.state, loaded.guard, loaded.audited) == (TargetState(NAME), GuardState(), False)
    assert ports.rows(NAME) == []


def test_what_was_committed_is_loaded_as_it_was(ports: Ports) -> None:
    after = stored(ports.store, drafted(full_state()))
    assert ports.store.load(NAME).state == after


def test_records_are_stored_in_order_as_the_bytes_that_were_hashed(ports: Ports) -> None:
    first = drafted(TargetState(NAME), records=2)
    second = drafted(stored(ports.store, first))
    stored(ports.store, second)
    expected = [(body, digest) for _, body, digest in (*first.records, *second.records)]
    rows = ports.rows(NAME)
    assert [(row.body, row.hash) for row in rows] == expected
    assert verify_chain(NAME, rows, (second.after.seq, second.after.head)) == []


def test_an_event_is_audited_once_it_was_committed_with_it(ports: Ports) -> None:
    stored(ports.store, drafted(TargetState(NAME), event_id="one"), "one")
    assert ports.store.load(NAME, "one").audited
    assert not ports.store.load(NAME, "two").audited
    assert not ports.store.load("111122223333/eu-west-1", "one").audited


def test_a_state_may_be_stored_without_a_record(ports: Ports) -> None:
    after = stored(ports.store, drafted(TargetState(NAME), records=0, recheck_at=AT))
    assert ports.store.load(NAME).state == after
    assert ports.rows(NAME) == []


def test_the_guards_own_state_is_loaded_beside_every_target(ports: Ports) -> None:
    guard = stored(ports.store, drafted(GuardState(), policy_digest="digest"))
    assert ports.store.load(NAME).guard == guard
    assert ports.store.load(GUARD_CHAIN).guard == guard


def test_a_state_of_a_newer_release_is_refused_as_are_all_if_it_is_the_guards_own(ports: Ports) -> None:
    newer = stored(ports.store, drafted(TargetState(NAME), format=FORMAT + 1))
    other = TargetState("111122223333/eu-west-1")
    for read in (lambda: ports.store.load(NAME), lambda: list(ports.store.states())):
        with pytest.raises(FormatTooNew, match=NAME):
            read()
    assert ports.store.load(other.target).state == other
    assert list(ports.store.heads()) == [(NAME, newer.seq, newer.head)], "verification needs no state"
    stored(ports.store, drafted(GuardState(), format=FORMAT + 1))
    for name in (NAME, other.target, GUARD_CHAIN):
        with pytest.raises(FormatTooNew):
            ports.store.load(name)


def conflict(ports: Ports, draft: Draft[TargetState], event_id: str | None = None) -> None:
    """The commit conflicts, and nothing of it was written."""
    before, rows = ports.store.load(NAME, event_id), ports.rows(NAME)
    with pytest.raises(Conflict):
        stored(ports.store, draft, event_id)
    assert (ports.store.load(NAME, event_id), ports.rows(NAME)) == (before, rows)


def test_a_commit_against_a_state_that_moved_conflicts_and_writes_nothing(ports: Ports) -> None:
    first = stored(ports.store, drafted(TargetState(NAME)))
    stored(ports.store, drafted(first))
    conflict(ports, drafted(first, records=2))


def test_a_target_is_seen_for_the_first_time_by_one_only(ports: Ports) -> None:
    stored(ports.store, drafted(TargetState(NAME)))
    conflict(ports, drafted(TargetState(NAME)))


def test_a_state_saved_without_a_record_moves_the_version_too(ports: Ports) -> None:
    first = stored(ports.store, drafted(TargetState(NAME)))
    stored(ports.store, drafted(first, records=0))
    conflict(ports, drafted(first))


def test_an_event_that_was_audited_is_not_audited_again_and_nothing_is_written(ports: Ports) -> None:
    first = stored(ports.store, drafted(TargetState(NAME)), "event")
    conflict(ports, drafted(first), "event")


def test_a_record_that_exists_is_never_written_over(ports: Ports) -> None:
    first = stored(ports.store, drafted(TargetState(NAME)))
    behind = drafted(TargetState(NAME, version=first.version))
    conflict(ports, behind)


MADE, FORGED = (f"arn:aws:kms:us-east-1:111122223333:key/{number:08}-2222-3333-4444-555555555555" for number in (1, 2))


def commits(store: Store, draft: Draft[TargetState], *used: str) -> TargetState:
    store.commit(draft.before, draft.after, draft.records, used=used)
    return draft.after


def test_p16_a_key_that_was_named_in_a_transaction_may_be_used_from_then_on(ports: Ports) -> None:
    first = commits(ports.store, drafted(TargetState(NAME)))
    made = commits(ports.store, drafted(first, keys_made=(MADE,), intent=Intent("nonce", AT)), MADE, "nonce")
    kept = commits(ports.store, drafted(made, managed_key=MADE, intent=None), MADE, "nonce")
    last = commits(ports.store, drafted(kept), MADE, FORGED)
    assert ports.store.load(NAME).state == last, "what the state does not name is not checked"


@pytest.mark.parametrize("fields", [{"managed_key": FORGED}, {"keys_made": (FORGED,)}, {"keys_retired": (FORGED,)}])
def test_p16_a_key_that_is_only_in_the_state_may_not_be_used_and_nothing_is_written(
    ports: Ports, fields: dict[str, object]
) -> None:
    first = commits(ports.store, drafted(TargetState(NAME), managed_key=MADE))
    forged = replace(first, **fields)
    before, rows = ports.store.load(NAME), ports.rows(NAME)
    with pytest.raises(KeyNotOnRecord, match=FORGED):
        commits(ports.store, drafted(forged), MADE, FORGED)
    assert (ports.store.load(NAME), ports.rows(NAME)) == (before, rows)
    again = commits(ports.store, drafted(forged))
    with pytest.raises(KeyNotOnRecord):
        commits(ports.store, drafted(again), FORGED)


def test_p16_a_lost_race_is_a_conflict_also_if_a_key_is_not_on_record(ports: Ports) -> None:
    first = commits(ports.store, drafted(TargetState(NAME)))
    commits(ports.store, drafted(first))
    with pytest.raises(Conflict):
        commits(ports.store, drafted(replace(first, managed_key=FORGED)), FORGED)


@pytest.mark.parametrize("known", [1, FORMAT - 1])
def test_p16_a_state_is_upgraded_once_and_all_its_keys_may_be_used_then(ports: Ports, known: int) -> None:
    """The same transaction checks no key: there are no rows before the upgrade."""
    former = replace(commits(ports.store, drafted(TargetState(NAME))), format=known, managed_key=MADE)
    with pytest.raises(StateEdited, match=NAME):
        commits(ports.store, drafted(former), MADE)
    ports.unmark(NAME)
    after = commits(ports.store, drafted(former), MADE)
    assert after.format == FORMAT
    later = commits(ports.store, drafted(after), MADE)
    with pytest.raises(StateEdited):
        commits(ports.store, drafted(replace(later, format=known)))


def test_p16_the_guards_own_state_is_upgraded_once(ports: Ports) -> None:
    guard = stored(ports.store, drafted(GuardState()))
    with pytest.raises(StateEdited, match=GUARD_CHAIN):
        stored(ports.store, drafted(replace(guard, format=FORMAT - 1)))


def test_what_is_due_is_named_soonest_first_and_no_sooner_than_it_is(ports: Ports) -> None:
    for region, minutes in (("us-east-1", 3), ("eu-west-1", 1), ("us-west-2", 2), ("eu-central-1", 9)):
        state = TargetState(f"111122223333/{region}")
        stored(ports.store, drafted(state, recheck_at=AT + timedelta(minutes=minutes)))
    stored(ports.store, drafted(TargetState("111122223333/ap-south-1")))
    due = [f"111122223333/{region}" for region in ("eu-west-1", "us-west-2", "us-east-1")]
    assert ports.store.due(AT + timedelta(minutes=5), 10) == due
    assert ports.store.due(AT + timedelta(minutes=5), 2) == due[:2]
    assert ports.store.due(AT, 10) == []


def test_what_is_no_longer_due_is_no_longer_named(ports: Ports) -> None:
    waiting = stored(ports.store, drafted(TargetState(NAME), recheck_at=AT))
    stored(ports.store, drafted(waiting, recheck_at=None))
    assert ports.store.due(AT + timedelta(days=1), 10) == []


def test_all_states_are_told_without_the_guards_and_all_heads_with_it(ports: Ports) -> None:
    here = stored(ports.store, drafted(TargetState(NAME)))
    there = stored(ports.store, drafted(TargetState("111122223333/eu-west-1"), records=2))
    guard = stored(ports.store, drafted(GuardState()))
    assert sorted(state.target for state in ports.store.states()) == sorted((here.target, there.target))
    heads = sorted((state.target, state.seq, state.head) for state in (here, there, guard))
    assert sorted(ports.store.heads()) == heads
