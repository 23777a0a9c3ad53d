"""Plan which reads a target needs. Pure.

The first round of reads, the glance, needs only the rule: the setting, the destination of spans, and the key behind
each alias that the rule names. Its results and the target's state determine the second round: the keys themselves and,
for those that X-Ray may use, also policy, rotation and tags; the log group of the spans, if they are not stored with
the traces; and once a day the links to other accounts. The log group may name one more key, which takes a third round.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from chalicelib.domain.errors import AwsError
from chalicelib.domain.judge import judge
from chalicelib.domain.keychoice import adoption, allowed_arns, is_ruled_out, managed_key
from chalicelib.domain.model import (
    ChangeEvent,
    EncryptionType,
    Key,
    KeyEvent,
    Setting,
    Subject,
    Target,
    TriggerKind,
    arn_part,
)
from chalicelib.domain.observation import CLOSED_KEY, Observation
from chalicelib.domain.policy import Rule, SpansRule
from chalicelib.domain.reasons import Outcome, Violation
from chalicelib.domain.spans import Spans
from chalicelib.domain.stored import TargetState
from chalicelib.domain.waiting import is_deep_check_due

LINKS_EVERY = timedelta(hours=24)
"""How often the links to other accounts are listed."""


class Glance(Struct, frozen=True):
    """The results of the first round. `aliases` maps an alias to its key, None if there is none, or KMS's refusal."""

    setting: Setting
    aliases: dict[str, Key | AwsError | None]
    spans: Spans = Spans()


class KeyReads(Struct, frozen=True):
    """The reads of one key. `details` are its policy, rotation and tags.

    `may_refuse`: a refused DescribeKey is not a failure, because the rule rules the key out by its name alone.
    """

    arn: str
    describe: bool
    details: bool
    may_refuse: bool


class ReadPlan(Struct, frozen=True):
    """The second round of reads. `use`: read from X-Ray whether any service was seen lately.

    `group`: read the log group of the spans. `links`: list the links to other accounts.
    """

    keys: tuple[KeyReads, ...]
    deep: bool
    use: bool
    group: bool = False
    links: bool = False


def plan_reads(
    target: Target,
    rule: Rule,
    state: TargetState,
    first: Glance,
    kind: TriggerKind,
    now: datetime,
    *,
    deep: bool | None = None,
    event: ChangeEvent | KeyEvent | None = None,
) -> ReadPlan:
    """Return what the second round must read; `deep` overrides how deep it goes.

    After an `event` about links, they are listed.

    Raises KMS's refusal to describe the managed alias's key if the guard never had a key here: it is unknown then which
    key is meant. Otherwise it needs no alias, so nobody can stop the guard by pointing the alias at a closed key.
    """
    meant = first.aliases[rule.managed_key.alias]
    if isinstance(meant, AwsError) and state.managed_key is None and not (state.keys_made or state.keys_retired):
        raise meant
    if deep is None:
        deep = not _is_as_before(state, first, kind, now)
    outline = outlined(first, now, deep=deep)
    key_arn = outline.setting.key_arn
    wanted = managed_key(state, outline, rule)
    own = [arn for arn in dict.fromkeys((wanted, key_arn)) if arn and arn_part(arn, 4) == target.account]
    reads = []
    for arn in own:
        known = outline.keys.get(arn)
        matters = arn == wanted or arn in allowed_arns(state, outline, rule, (arn,))
        customers = known is None or known.manager == "CUSTOMER"
        ruled_out = is_ruled_out(arn, state, outline, rule)
        reads.append(KeyReads(arn, arn not in outline.keys, deep and matters and customers, ruled_out))
    if key_arn and key_arn not in own:
        ruled_out = is_ruled_out(key_arn, state, outline, rule)
        reads.append(KeyReads(key_arn, not rule.require.same_account, False, ruled_out))
    asks_use = kind in (TriggerKind.SWEEP, TriggerKind.TICK) and not state.ever_used
    use = asks_use and outline.setting.type is EncryptionType.NONE
    # Not in a round of their own, unless a sweep makes it: nothing waits for the links.
    has_room = deep and (bool(reads) or kind is TriggerKind.SWEEP)
    changed = event is not None and event.effect is not None and event.effect.subject is Subject.LINKS
    links = changed or (has_room and _are_links_due(state, kind, now))
    return ReadPlan(tuple(reads), deep, use, first.spans.are_in_logs, links)


def outlined(first: Glance, now: datetime, *, deep: bool) -> Observation:
    """Return the observation as far as the glance alone determines it."""
    keys: dict[str, Key | None] = {key.arn: key for key in first.aliases.values() if isinstance(key, Key)}
    aliases = {alias: _arn_of(key) for alias, key in first.aliases.items()}
    return Observation(now, first.setting, keys, aliases, deep=deep, spans=first.spans)


def key_of_spans(target: Target, rule: Rule, state: TargetState, seen: Observation) -> str | None:
    """Return the key of the log group, if the rule allows it by name and it was not read yet."""
    arn = seen.spans.group.key_arn if seen.spans.group else None
    if arn is None or arn in seen.keys or rule.require.spans is not SpansRule.ENCRYPT:
        return None
    foreign = arn_part(arn, 4) != target.account and rule.require.same_account
    return None if foreign or is_ruled_out(arn, state, seen, rule) else arn


def wants_more(target: Target, rule: Rule, state: TargetState, seen: Observation) -> bool:
    """Whether a shallow observation found anything, so that a deep one is needed."""
    return bool(judge(target, rule, state, seen) or adoption(state, seen, rule))


def _is_as_before(state: TargetState, first: Glance, kind: TriggerKind, now: datetime) -> bool:
    """Whether a shallow observation is enough: a sweep checks a compliant target whose setting has not changed."""
    return (
        kind is TriggerKind.SWEEP
        and not is_deep_check_due(state, now)
        and state.incident is None
        and state.watch is None
        and first.setting.same_choice(state.setting)
        and state.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED)
    )


def _are_links_due(state: TargetState, kind: TriggerKind, now: datetime) -> bool:
    """Whether a deep observation lists the links: once a day, and with each sweep while one is forbidden."""
    known = state.links
    if known is None or known.problem is not None or now - known.at >= LINKS_EVERY:
        return True
    return kind in (TriggerKind.SWEEP, TriggerKind.OPERATOR) and Violation.TRACES_COPIED in state.violations


def _arn_of(key: Key | AwsError | None) -> str | None:
    return CLOSED_KEY if isinstance(key, AwsError) else key.arn if key else None
