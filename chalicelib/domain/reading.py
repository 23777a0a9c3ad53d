"""What must be read about a target, planned before it is read: pure.

The first round of reads, the glance, needs nothing but the rule: the setting, and the key behind each alias that the
rule names. What it answers and the target's state say what the second round must read: the keys themselves, and of
those that may be X-Ray's also the policy, the rotation and the tags.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.errors import AwsError
from chalicelib.domain.judge import judge
from chalicelib.domain.keychoice import adoption, allowed_arns, is_ruled_out, managed_key
from chalicelib.domain.model import EncryptionType, Key, Setting, Target, TriggerKind, arn_part
from chalicelib.domain.observation import CLOSED_KEY, Observation
from chalicelib.domain.policy import Rule
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.stored import TargetState
from chalicelib.domain.waiting import is_deep_check_due


class Glance(Struct, frozen=True):
    """What the first round of reads answered: of an alias its key, None for no such alias, or KMS's refusal."""

    setting: Setting
    aliases: dict[str, Key | AwsError | None]


class KeyReads(Struct, frozen=True):
    """The reads of one key. `details` are its policy, rotation and tags.

    `may_refuse`: KMS's refusal of DescribeKey is no failure, because the rule rules the key out by its name alone.
    """

    arn: str
    describe: bool
    details: bool
    may_refuse: bool


class ReadPlan(Struct, frozen=True):
    """The second round of reads. `use` asks X-Ray whether any service was seen of late."""

    keys: tuple[KeyReads, ...]
    deep: bool
    use: bool


def rule_aliases(rule: Rule) -> tuple[str, ...]:
    """The aliases that the rule names, the managed key's first."""
    allowed = (name for name in rule.require.allowed_keys if name.startswith("alias/"))
    return tuple(dict.fromkeys((rule.managed_key.alias, *allowed)))


def plan_reads(
    target: Target,
    rule: Rule,
    state: TargetState,
    first: Glance,
    kind: TriggerKind,
    now: datetime,
    *,
    deep: bool | None = None,
) -> ReadPlan:
    """What the second round must read; `deep` overrules how deep it goes.

    Raises KMS's refusal to describe the managed alias's key where the guard has recorded no key: nobody can tell then
    which key is meant. A recorded key needs no alias, so whoever points the alias at a closed key does not stop the
    guard.
    """
    meant = first.aliases[rule.managed_key.alias]
    if isinstance(meant, AwsError) and state.managed_key is None:
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
        closed = is_ruled_out(arn, state, outline, rule)
        reads.append(KeyReads(arn, arn not in outline.keys, deep and matters and customers, closed))
    if key_arn and key_arn not in own:
        closed = is_ruled_out(key_arn, state, outline, rule)
        reads.append(KeyReads(key_arn, not rule.require.same_account, False, closed))
    asks_use = kind in (TriggerKind.SWEEP, TriggerKind.TICK) and not state.ever_used
    return ReadPlan(tuple(reads), deep, asks_use and outline.setting.type is EncryptionType.NONE)


def learn_of_intent(state: TargetState, found: str | None, now: datetime) -> TargetState:
    """Finding the key that a lost worker may have made is proof; not finding it is none before the intent is due."""
    assert state.intent is not None
    if found:
        return replace(state, keys_made=(*state.keys_made, found), intent=None)
    return replace(state, intent=None) if now >= state.intent.due else state


def outlined(first: Glance, now: datetime, *, deep: bool) -> Observation:
    """What the glance alone tells, as the beginning of an observation."""
    keys: dict[str, Key | None] = {key.arn: key for key in first.aliases.values() if isinstance(key, Key)}
    aliases = {alias: _arn_of(key) for alias, key in first.aliases.items()}
    return Observation(now, first.setting, keys, aliases, deep=deep)


def wants_more(target: Target, rule: Rule, state: TargetState, seen: Observation) -> bool:
    """Whether a shallow observation found anything, so that everything must be read."""
    return bool(judge(target, rule, state, seen) or adoption(state, seen, rule))


def _is_as_before(state: TargetState, first: Glance, kind: TriggerKind, now: datetime) -> bool:
    """Whether a shallow look will do: a sweep's, at a target that was compliant and whose setting has not moved."""
    return (
        kind is TriggerKind.SWEEP
        and not is_deep_check_due(state, now)
        and state.incident is None
        and state.watch is None
        and first.setting.same_choice(state.setting)
        and state.outcome in (Outcome.COMPLIANT, Outcome.REMEDIATED)
    )


def _arn_of(key: Key | AwsError | None) -> str | None:
    return CLOSED_KEY if isinstance(key, AwsError) else key.arn if key else None
