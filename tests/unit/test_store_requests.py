"""The store's requests to DynamoDB: consistent where the loop decides by them, and read to their last page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from freezegun import freeze_time
from msgspec.structs import replace

from chalicelib.auditlog import daily_totals, hashchain
from chalicelib.auditlog.draft import Draft
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.logreads import LogStore
from chalicelib.aws.tables import ASKED_PREFIX, AUDIT_TABLE, DUE_SHARD, ROSTER, ROSTER_SHARDS, TARGETS_TABLE
from chalicelib.domain import ports
from chalicelib.domain.errors import AwsError, Conflict, KeyNotOnRecord, StateEdited
from chalicelib.domain.formats import FORMAT
from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GUARD_CHAIN, GuardState, Pause, TargetState
from tests.unit.endpoint import Endpoint, Refused, Request

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HERE = "111122223333/us-east-1"
EVENT = "11111111-2222-3333-4444-555555555555"
PAUSED = GuardState(version=3, paused=Pause(NOW, "arn:aws:iam::111122223333:user/Ops", "migration"))
KNOWN = TargetState(HERE, version=7, seq=2, head="ab" * 32)

Answer = Callable[[str, dict[str, Any]], dict[str, Any]]


def stored(state: TargetState | GuardState) -> dict[str, Any]:
    """A state as the targets table holds it."""
    return {
        "target": {"S": state.target},
        "state": {"S": msgspec.json.encode(state).decode()},
        "version": {"N": str(state.version)},
        "seq": {"N": str(state.seq)},
        "head": {"S": state.head},
    }


def row(number: int) -> dict[str, Any]:
    return {"target": {"S": HERE}, "sk": {"S": hashchain.sort_key(number)}, "body": {"S": "{}"}, "hash": {"S": "0"}}


def marker(number: int) -> dict[str, Any]:
    return {"target": {"S": HERE}, "sk": {"S": f"e#event-{number}"}, "seq": {"N": str(number)}}


class Dynamo:
    """The items of both tables, answered `page` at a time; BatchGetItem leaves all but `batch` keys unprocessed."""

    def __init__(self, items: Iterable[dict[str, Any]] = (), page: int = 1000, batch: int = 100) -> None:
        self.items = list(items)
        self.page = page
        self.batch = batch

    def __call__(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if operation in ("Query", "Scan"):
            return self._pages(parameters)
        if operation == "BatchGetItem":
            return self._batches(parameters["RequestItems"])
        if operation == "GetItem":
            return {"Item": self._get(parameters["Key"])} if self._get(parameters["Key"]) else {}
        return {}

    def _pages(self, parameters: dict[str, Any]) -> dict[str, Any]:
        prefix = parameters.get("ExpressionAttributeValues", {}).get(":prefix", {"S": ""})["S"]
        found = [item for item in self.items if "sk" in item and item["sk"]["S"].startswith(prefix)]
        after = parameters.get("ExclusiveStartKey")
        first = 1 + next(at for at, item in enumerate(found) if _key(item) == after) if after else 0
        page = found[first : first + self.page]
        more = first + self.page < len(found)
        return {"Items": page, **({"LastEvaluatedKey": _key(page[-1])} if more else {})}

    def _batches(self, wanted: dict[str, Any]) -> dict[str, Any]:
        responses: dict[str, list[dict[str, Any]]] = {}
        left: dict[str, Any] = {}
        room = self.batch
        assert sum(len(each["Keys"]) for each in wanted.values()) <= 100, "BatchGetItem takes 100 keys"
        for table, query in wanted.items():
            now, later = query["Keys"][:room], query["Keys"][room:]
            room -= len(now)
            responses[table] = [item for key in now if (item := self._get(key))]
            if later:
                left[table] = {**query, "Keys": later}
        return {"Responses": responses, "UnprocessedKeys": left}

    def _get(self, key: dict[str, Any]) -> dict[str, Any] | None:
        alike = (item for item in self.items if ("sk" in item) == ("sk" in key))
        found = next((item for item in alike if all(item[name] == value for name, value in key.items())), None)
        return dict(found) if found else None


def _key(item: dict[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in ("target", "sk")}


def connected(answer: Answer) -> tuple[LogStore, Endpoint]:
    endpoint = Endpoint(answer)
    return LogStore(endpoint.clients, "us-east-1", AwsClock(), AUDIT_TABLE, TARGETS_TABLE), endpoint


def is_consistent(request: Request) -> bool:
    if request.operation == "BatchGetItem":
        return all(query.get("ConsistentRead") is True for query in request.parameters["RequestItems"].values())
    return request.parameters.get("ConsistentRead") is True


def roster(names: Iterable[str]) -> list[dict[str, Any]]:
    """The roster's items, the names dealt out over its shards."""
    dealt: dict[int, list[str]] = {}
    for number, name in enumerate(names):
        dealt.setdefault(number % ROSTER_SHARDS, []).append(name)
    return [{"target": {"S": f"{ROSTER}#{shard}"}, "names": {"SS": held}} for shard, held in dealt.items()]


# --- consistent reads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.load(HERE, EVENT),
        lambda store: list(store.states()),
        lambda store: list(store.heads()),
        lambda store: store.stored_state(HERE),
        lambda store: list(store.rows(HERE)),
        lambda store: list(store.markers(HERE)),
        lambda store: list(store.key_rows(HERE)),
        lambda store: list(store.row_keys()),
        lambda store: store.oldest(HERE, 10),
        lambda store: store.newest(HERE, 10),
    ],
    ids=["load", "states", "heads", "stored_state", "rows", "markers", "key_rows", "row_keys", "oldest", "newest"],
)
def test_p8_p16_what_is_decided_or_verified_by_is_read_consistently(read: Callable[[LogStore], object]) -> None:
    store, endpoint = connected(Dynamo([stored(KNOWN), *roster([HERE]), row(1), marker(1)]))
    read(store)
    assert endpoint.requests
    assert [request.operation for request in endpoint.requests if not is_consistent(request)] == []


# --- what DynamoDB leaves for another request ------------------------------------------------------------------------


def test_p13_the_brake_is_seen_though_dynamodb_answers_one_key_at_a_time() -> None:
    mark = {"target": {"S": HERE}, "sk": {"S": f"e#{EVENT}"}}
    store, endpoint = connected(Dynamo([mark, stored(KNOWN), stored(PAUSED)], batch=1))
    loaded = store.load(HERE, EVENT)
    assert (loaded.state, loaded.guard, loaded.audited) == (KNOWN, PAUSED, True)
    assert all(is_consistent(request) for request in endpoint.requests)


def test_a_state_that_dynamodb_never_answers_is_no_state_never_seen() -> None:
    store, _ = connected(lambda operation, parameters: {"Responses": {}, "UnprocessedKeys": parameters["RequestItems"]})
    with pytest.raises(AwsError, match="unread"):
        store.load(HERE)
    with pytest.raises(AwsError, match="unread"):
        list(store.heads())


def test_p16_every_head_is_told_though_dynamodb_answers_thirty_keys_at_a_time() -> None:
    states = [TargetState(f"111122223333/eu-west-{number}", version=1, seq=number) for number in range(250)]
    store, _ = connected(Dynamo([*map(stored, states), *roster(state.target for state in states)], batch=30))
    assert {target: seq for target, seq, _ in store.heads()} == {state.target: state.seq for state in states}
    assert sorted(state.target for state in store.states()) == sorted(state.target for state in states)


def test_p16_every_row_and_marker_is_read_however_short_the_pages() -> None:
    rows, markers = [row(number) for number in range(1, 6)], [marker(number) for number in range(1, 4)]
    store, _ = connected(Dynamo([*markers, *rows], page=2))
    assert [each.sk for each in store.rows(HERE)] == [item["sk"]["S"] for item in rows]
    assert [seq for _, seq in store.markers(HERE)] == [1, 2, 3]
    assert len(list(store.row_keys())) == 8


def test_the_sums_of_many_days_are_added_up_over_every_shard() -> None:
    days = [f"figures#2026-10-{day:02d}" for day in range(1, 31)]
    items = [
        {"target": {"S": f"{day}#{shard}"}, "opened": {"N": str(shard + 1)}}
        for day in days
        for shard in range(daily_totals.SHARDS)
    ]
    store, _ = connected(Dynamo(items, batch=30))
    expected = sum(range(1, daily_totals.SHARDS + 1))
    assert {day: amounts["opened"] for day, amounts in store.sums(days).items()} == dict.fromkeys(days, expected)


# --- writing ---------------------------------------------------------------------------------------------------------


def a_write(before: TargetState = KNOWN, due: datetime | None = None) -> Draft[TargetState]:
    draft = Draft(before)
    draft.add(NOW, Outcome.COMPLIANT, Trigger(TriggerKind.CHANGE, EVENT))
    draft.set(version=before.version + 1, recheck_at=due)
    return draft


def cancelled(*reasons: str) -> Refused:
    """Whatever the message says: the reasons are a list of their own."""
    listed = [{"Code": reason} for reason in reasons]
    return Refused("TransactionCanceledException", "Transaction cancelled", CancellationReasons=listed)


@pytest.mark.parametrize("reason", ["ConditionalCheckFailed", "TransactionConflict"])
@pytest.mark.parametrize("written", range(3), ids=["record", "marker", "state"])
def test_p8_a_write_that_met_another_on_any_item_is_a_conflict(reason: str, written: int) -> None:
    """So that the run observes again; as any other error it would be a failed run, and on the record as one."""

    def answer(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        reasons = ["None"] * len(parameters["TransactItems"])
        reasons[written] = reason
        raise cancelled(*reasons)

    store, endpoint = connected(answer)
    draft = a_write()
    with pytest.raises(Conflict):
        store.commit(draft.before, draft.after, draft.records, EVENT)
    assert len(endpoint.requests) == 1


def test_p3_p5_a_record_its_marker_and_the_state_are_one_transaction_and_overwrite_nothing() -> None:
    store, endpoint = connected(Dynamo())
    draft = a_write()
    store.commit(draft.before, draft.after, draft.records, EVENT)
    (request,) = endpoint.requests
    record, mark, state, *_ = (next(iter(item.values())) for item in request.parameters["TransactItems"])
    assert (record["Item"]["sk"]["S"], record["ConditionExpression"]) == ("r#000000000003", "attribute_not_exists(sk)")
    assert (mark["Item"]["sk"]["S"], mark["ConditionExpression"]) == (f"e#{EVENT}", "attribute_not_exists(sk)")
    assert mark["Item"]["seq"] == {"N": "3"}, "the marker points at the record"
    assert state["Item"]["version"] == {"N": "8"}
    assert (state["ConditionExpression"], state["ExpressionAttributeValues"]) == (
        "version = :version",
        {":version": {"N": "7"}},
    )


NAMED = replace(KNOWN, managed_key="arn:of-a-key")


def refused_at(kind: str, draft: Draft[TargetState], *more: str) -> LogStore:
    """A store whose transaction fails on the conditions of all writes of this kind, and on those of `more`."""

    def answer(operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        failing = [kind in str(item) or any(each in str(item) for each in more) for item in parameters["TransactItems"]]
        assert any(failing)
        raise cancelled(*("ConditionalCheckFailed" if fails else "None" for fails in failing))

    return connected(answer)[0]


def test_p16_a_key_that_is_used_and_not_on_record_is_refused_by_name_and_is_no_conflict() -> None:
    draft = a_write(NAMED)
    store = refused_at("ConditionCheck", draft)
    with pytest.raises(KeyNotOnRecord, match="arn:of-a-key"):
        store.commit(draft.before, draft.after, draft.records, EVENT, used=("arn:of-a-key", "arn:never-named"))


def test_p16_a_state_that_only_claims_an_earlier_format_is_refused_and_is_no_conflict() -> None:
    draft = a_write(replace(NAMED, format=FORMAT - 1))
    store = refused_at("k#upgraded", draft)
    with pytest.raises(StateEdited, match=HERE):
        store.commit(draft.before, draft.after, draft.records, EVENT)


def test_p8_a_lost_race_is_a_conflict_whatever_else_failed() -> None:
    draft = a_write(NAMED)
    store = refused_at("ConditionCheck", draft, "version = :version")
    with pytest.raises(Conflict):
        store.commit(draft.before, draft.after, draft.records, EVENT, used=("arn:of-a-key",))
    first = a_write(TargetState(HERE))
    store = refused_at("k#upgraded", first, "attribute_not_exists(target)")
    with pytest.raises(Conflict):
        store.commit(first.before, first.after, first.records, EVENT)


def test_p1_a_state_with_something_due_stands_in_the_index_that_tick_reads_and_no_other() -> None:
    store, endpoint = connected(Dynamo())
    for due in (NOW, None):
        draft = a_write(due=due)
        store.commit(draft.before, draft.after)
    waiting, still = (request.parameters["TransactItems"][0]["Put"]["Item"] for request in endpoint.requests)
    assert waiting["due_at"] == {"S": "2026-11-20T12:00:00.000000Z"}
    assert waiting["due_shard"] == {"S": DUE_SHARD}
    assert not {"due_shard", "due_at"} & still.keys()


def test_p16_a_chain_seen_for_the_first_time_is_on_the_roster_that_verification_reads() -> None:
    store, endpoint = connected(Dynamo())
    draft = a_write(TargetState(HERE))
    store.commit(draft.before, draft.after, draft.records)
    (request,) = endpoint.requests
    updates = [item["Update"] for item in request.parameters["TransactItems"] if "Update" in item]
    enrolled = [each for each in updates if each["Key"]["target"]["S"].startswith(f"{ROSTER}#")]
    assert [each["ExpressionAttributeValues"] for each in enrolled] == [{":name": {"SS": [HERE]}}]
    assert int(enrolled[0]["Key"]["target"]["S"].partition("#")[2]) < ROSTER_SHARDS


def test_a_request_made_anew_is_not_taken_off_with_the_one_before() -> None:
    store, endpoint = connected(Dynamo())
    store.done(ports.Request(HERE, "2026-11-20T12:00:00.000000Z", "arn:aws:iam::111122223333:user/Ops"))
    (request,) = endpoint.requests
    assert request.parameters["Item"]["target"] == {"S": f"{ASKED_PREFIX}{HERE}"}
    assert request.parameters["ConditionExpression"] == "due_at = :at"
    assert not {"due_shard", "due_at"} & request.parameters["Item"].keys()


# --- the clock -------------------------------------------------------------------------------------------------------


def test_p15_the_stores_answers_tell_aws_time_whatever_the_host_believes() -> None:
    clock = AwsClock(lambda: 0.0)
    endpoint = Endpoint(Dynamo(), date="Fri, 20 Nov 2026 12:00:00 GMT")
    store = LogStore(endpoint.clients, "us-east-1", clock, AUDIT_TABLE, TARGETS_TABLE)
    with freeze_time(NOW + timedelta(days=400)):
        store.load(GUARD_CHAIN)
        assert clock.now() == NOW
