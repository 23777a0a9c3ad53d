"""What a draft settles: what is stored, what goes on in silence, and what the records say of break-glass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from chalicelib.domain.breakglass import Weighed
from chalicelib.domain.decide import Decision
from chalicelib.domain.model import EncryptionType, KeyEvent, Setting, Target, Trigger, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Mode, Rule
from chalicelib.domain.reasons import Outcome, Reason, Violation
from chalicelib.domain.run import At
from chalicelib.domain.settle import Judged, settle
from chalicelib.domain.settlement import SettlementDraft
from chalicelib.domain.stored import Incident, Intent, Lease, Phase, Suppression, TargetState
from chalicelib.domain.waiting import STALE_READS
from tests.unit.runs import ACCOUNT, a_run, known_as

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TARGET = Target(ACCOUNT, "us-east-1")
RULE = Rule("baseline", ("*",), ("*",), Mode.ENFORCE)
KEY_ARN = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/11111111-1111-1111-1111-111111111111"
STATE = TargetState(str(TARGET), version=3, outcome=Outcome.COMPLIANT, managed_key=KEY_ARN)
OPEN = Suppression(KEY_ARN, "20261120T180000Z INC-1", "INC-1", NOW - HOUR, NOW + 6 * HOUR, NOW + 6 * HOUR)


def drafted(state: TargetState = STATE, glass: Weighed | None = None) -> SettlementDraft:
    return SettlementDraft(a_run(TARGET, RULE), known_as(state), At(NOW), glass=glass)


# --- what is stored --------------------------------------------------------------------------------------------------


def test_p10_a_run_that_found_nothing_new_stores_nothing() -> None:
    settlement = drafted().settled(Outcome.COMPLIANT)
    assert (settlement.lines, settlement.state, settlement.outcome) == ((), None, Outcome.COMPLIANT)


def test_p2_what_a_run_learned_is_stored_though_it_found_nothing_new() -> None:
    searching = replace(STATE, intent=Intent("nonce", NOW + HOUR))
    learned = replace(searching, keys_made=(KEY_ARN,), intent=None)
    known = replace(known_as(searching), state=learned)
    settlement = SettlementDraft(a_run(TARGET, RULE), known, At(NOW)).settled(Outcome.COMPLIANT)
    assert [(line.fields["reason"], line.fields["detail"]) for line in settlement.lines] == [
        (Reason.KEY_FOUND, {"key": KEY_ARN})
    ]
    assert (settlement.state, settlement.used) == (learned, ("nonce",))


@pytest.mark.parametrize("until", [None, NOW + HOUR], ids=["nobody acts", "a worker acts"])
def test_p1_after_a_key_event_all_is_read_again_once_kms_surely_shows_it(until: datetime | None) -> None:
    lease = Lease("sweep/1", 1, until) if until else None
    incident = Incident(f"{TARGET}#1", NOW, None, Phase.ACTING if lease else Phase.OPEN, lease=lease)
    event = KeyEvent(TARGET, Trigger(TriggerKind.KEY, "event-1"), (KEY_ARN,))
    run = a_run(TARGET, RULE, event=event)
    draft = SettlementDraft(run, known_as(replace(STATE, incident=incident)), At(NOW))
    settlement = draft.settled(Outcome.DEFERRED, Reason.IN_PROGRESS)
    assert settlement.state is not None
    assert settlement.state.recheck_at == settlement.due == NOW + STALE_READS


# --- break-glass -----------------------------------------------------------------------------------------------------


def test_p14_an_opening_is_recorded_as_suppressed_and_a_refusal_or_an_end_as_ignored() -> None:
    notes = (
        (Reason.BREAK_GLASS_OPENED, OPEN),
        (Reason.BREAK_GLASS_REFUSED, replace(OPEN, refused="PAST")),
        (Reason.BREAK_GLASS_ENDED, replace(OPEN, closed="END")),
    )
    settlement = drafted(glass=Weighed((OPEN,), OPEN, notes)).settled(Outcome.COMPLIANT)
    assert [(line.outcome, line.fields["reason"]) for line in settlement.lines] == [
        (Outcome.SUPPRESSED, "BREAK_GLASS_OPENED"),
        (Outcome.IGNORED, "BREAK_GLASS_REFUSED"),
        (Outcome.IGNORED, "BREAK_GLASS_ENDED"),
    ]
    assert [line.fields["suppression"] for line in settlement.lines] == [suppression for _, suppression in notes]


def test_p14_what_is_recorded_of_a_break_glass_is_remembered_and_watched_while_it_is_open() -> None:
    opened = drafted(glass=Weighed((OPEN,), OPEN, ((Reason.BREAK_GLASS_OPENED, OPEN),))).settled(Outcome.COMPLIANT)
    assert opened.state is not None
    assert (opened.state.suppressions, opened.state.watch) == ((OPEN,), NOW)
    closed = replace(OPEN, closed="REMOVED")
    glass = Weighed((closed,), None, ((Reason.BREAK_GLASS_ENDED, closed),))
    ended = drafted(opened.state, glass).settled(Outcome.COMPLIANT)
    assert ended.state is not None
    assert (ended.state.suppressions, ended.state.watch) == ((closed,), None)


def test_p14_a_break_glass_that_a_rule_shortened_is_remembered_so_though_there_is_nothing_to_record() -> None:
    shorter = replace(OPEN, until=NOW + HOUR)
    state = replace(STATE, suppressions=(OPEN,), watch=NOW - HOUR)
    settlement = drafted(state, Weighed((shorter,), shorter)).settled(Outcome.COMPLIANT)
    assert settlement.lines == ()
    assert settlement.state is not None
    assert settlement.state.suppressions == (shorter,)


def test_p14_a_break_glass_that_goes_on_as_before_stores_nothing() -> None:
    state = replace(STATE, suppressions=(OPEN,), watch=NOW - HOUR)
    assert drafted(state, Weighed((OPEN,), OPEN)).settled(Outcome.COMPLIANT).state is None


def test_p14_the_record_of_a_drift_that_is_held_back_says_which_break_glass_does_not_count() -> None:
    refused = replace(OPEN, refused="DENY_MISSING", until=None)
    seen = Observation(NOW, Setting(EncryptionType.NONE))
    decision = Decision(Outcome.DEFERRED, (Violation.NOT_KMS,), Reason.PAUSED, "paused by alice: testing")
    end = Judged(seen, Weighed((refused,), None, (), refused), decision)
    (line,) = settle(a_run(TARGET, RULE), known_as(STATE), end, At(NOW)).lines
    assert (line.outcome, line.fields["suppression"]) == (Outcome.DEFERRED, refused)
