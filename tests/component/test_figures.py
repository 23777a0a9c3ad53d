"""Figures in the tables: what the guard's own runs added up is what its records say, and never keeps a record out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from chalicelib.auditlog import history
from chalicelib.auditlog.daily_totals import FINEST_SECONDS, RELATIVE_ERROR
from chalicelib.auditlog.draft import Draft
from chalicelib.auditlog.filters import Filter
from chalicelib.auditlog.summary import Summary, summarize
from chalicelib.aws.clients import Clients
from chalicelib.aws.clock import AwsClock
from chalicelib.aws.logreads import LogStore
from chalicelib.domain.errors import Conflict
from chalicelib.domain.model import Trigger, TriggerKind
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import GuardState, TargetState
from chalicelib.wiring import make_log_store
from tests.component import operated
from tests.component.operated import HERE, REGION

SWEEP = Trigger(TriggerKind.SWEEP)


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account with the guard's tables, and nothing else."""
    for name, value in operated.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with operated.world():
        yield


def store() -> LogStore:
    return make_log_store(Clients(operated.with_models(botocore.session.Session())), REGION, AwsClock())


def everything(log: LogStore) -> Summary:
    today = AwsClock().now().date()
    return summarize(log, today - timedelta(days=1), today)


def test_figures_agree_with_a_count_of_the_records_after_changes_sweeps_and_duplicates() -> None:
    for number in range(3):
        answer = operated.event()
        answer["detail"]["eventID"] = f"event-{number}"
        operated.client("xray").put_encryption_config(Type="NONE")
        operated.delivered(answer)
        operated.delivered(answer)
        operated.swept(REGION, "eu-west-1")
    log = store()
    now = AwsClock().now()
    records = [
        entry.record for entry in history.records(log, Filter(), now, 500).entries if entry.record.target != "guard"
    ]
    views = history.incidents(log, Filter(), now, 500).incidents
    told_now = everything(log)
    assert told_now.records == Counter(record.outcome.value for record in records)
    assert (told_now.opened, told_now.closed) == (len(views), sum(not view.open for view in views))
    assert len(views) == 3
    assert {each.actor: each.incidents for each in told_now.top_actors} == Counter(
        view.actor.arn for view in views if view.actor
    )
    targets = history.targets(log.states(), GuardState(), now)
    assert (told_now.targets.targets, told_now.targets.compliant) == (2, sum(view.compliant for view in targets))
    measured = sorted(view.exposure_seconds or 0.0 for view in views)
    assert told_now.exposure.p99 == pytest.approx(measured[-1], rel=RELATIVE_ERROR, abs=FINEST_SECONDS)


class Cancelling:
    """DynamoDB's client, which cancels prepared transactions, item by item."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.reasons: list[dict[str, str]] = []
        self.sent: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def transact_write_items(self, TransactItems: list[Any]) -> Any:
        """Cancel with the next reasons, given by the kind of key they are for; carry out when there are none left."""
        kinds = [next(iter(item.values())) for item in TransactItems]
        keys = [(kind.get("Key") or kind["Item"])["target"]["S"].partition("#")[0] for kind in kinds]
        self.sent.append(keys)
        if not self.reasons:
            return self._client.transact_write_items(TransactItems=TransactItems)
        why = self.reasons.pop(0)
        refusal: Any = {
            "Error": {"Code": "TransactionCanceledException", "Message": "Transaction cancelled"},
            "CancellationReasons": [{"Code": why.get(key, "None")} for key in keys],
        }
        raise ClientError(refusal, "TransactWriteItems")


class TestCancelled:
    """A transaction that DynamoDB cancelled, and what of it is stored after all."""

    @pytest.fixture
    def client(self) -> Cancelling:
        return Cancelling(operated.client("dynamodb"))

    @pytest.fixture
    def log(self, client: Cancelling) -> LogStore:
        class Same(Clients):
            def reading(self, service: str, region: str) -> Any:
                return client

        return make_log_store(Same(), REGION, AwsClock())

    @staticmethod
    def write(log: LogStore) -> None:
        draft = Draft(TargetState(HERE))
        draft.add(AwsClock().now(), Outcome.COMPLIANT, SWEEP)
        draft.set(version=1, outcome=Outcome.COMPLIANT)
        log.commit(draft.before, draft.after, draft.records)

    def test_for_another_target_that_adds_at_the_same_moment_is_sent_again_whole(
        self, client: Cancelling, log: LogStore
    ) -> None:
        client.reasons = [{"figures": "TransactionConflict"}, {"present": "TransactionConflict"}]
        self.write(log)
        assert log.load(HERE).state.version == 1
        assert everything(log).records == {"COMPLIANT": 1}
        assert everything(log).targets.compliant == 1

    def test_for_a_figure_that_cannot_be_added_is_stored_without_it(self, client: Cancelling, log: LogStore) -> None:
        client.reasons = [{"figures": "ValidationError"}]
        self.write(log)
        assert log.load(HERE).state.version == 1
        assert everything(log).records == {}
        assert everything(log).targets.compliant == 1

    def test_for_the_state_itself_is_a_lost_race_and_nothing_is_added(self, client: Cancelling, log: LogStore) -> None:
        client.reasons = [{HERE: "ConditionalCheckFailed", "figures": "TransactionConflict"}]
        with pytest.raises(Conflict):
            self.write(log)
        assert len(client.sent) == 1
        assert log.load(HERE).state.version == 0
        assert everything(log).records == {}

    def test_again_and_again_is_a_lost_race(self, client: Cancelling, log: LogStore) -> None:
        client.reasons = [{"figures": "TransactionConflict"}] * 10
        with pytest.raises(Conflict):
            self.write(log)
        assert log.load(HERE).state.version == 0


def test_a_write_that_lost_its_race_adds_nothing() -> None:
    log = store()
    TestCancelled.write(log)
    with pytest.raises(Conflict):
        TestCancelled.write(log)
    assert everything(log).records == {"COMPLIANT": 1}


def test_what_is_asked_for_waits_until_it_is_answered_and_again_when_asked_anew() -> None:
    log = store()
    now = AwsClock().now()
    log.ask(HERE, now, "arn:aws:iam::123456789012:user/Ops")
    (first,) = log.pending(10)
    assert (first.target, first.by) == (HERE, "arn:aws:iam::123456789012:user/Ops")
    log.ask(HERE, now + timedelta(seconds=1), "arn:aws:iam::123456789012:user/Other")
    log.done(first)
    (second,) = log.pending(10)
    assert second.by.endswith("user/Other")
    log.done(second)
    assert log.pending(10) == []
    assert log.due(now + timedelta(days=1), 10) == []
    assert list(log.states()) == []
    assert list(log.heads()) == []
