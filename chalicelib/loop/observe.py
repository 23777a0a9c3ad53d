"""Reading everything about a target at one moment, in as few round trips as the reads allow.

The first round needs nothing but the rule: the setting, and the key behind each alias that the rule names. The second
needs what the first and the state told: the keys themselves, and of those that may be X-Ray's also the policy, the
rotation and the tags. A read that fails makes the whole observation fail: nothing is decided on half of it. The one
exception is a key that shuts the guard out and needs no reading: whoever points X-Ray, or the alias of a recorded key,
at a key of their own must not be able to stop the guard by that key's policy. And whether X-Ray is in use only ever
excuses a target: where the guard may not read it, the target is judged as if it were.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from chalicelib.domain.errors import DENIED, AwsError
from chalicelib.domain.keychoice import allowed_arns, is_ruled_out, managed_key
from chalicelib.domain.model import EncryptionType, Key, Setting, arn_part
from chalicelib.domain.observation import CLOSED_KEY, Observation
from chalicelib.domain.policy import Rule
from chalicelib.domain.ports import Gather, Reach
from chalicelib.domain.stored import TargetState

ROTATION_UNKNOWN = frozenset({"KMSInvalidStateException", "DisabledException", "UnsupportedOperationException"})
"""KMS tells no rotation of such a key; its state or spec is the violation then."""

DEPTHS = ("policy", "rotation", "tags")

MISSING = "NotFoundException"
"""The answer of a read about a key that KMS says is not there."""

Read = Callable[[], Any]


class Glance(Struct, frozen=True):
    """What the first round of reads told: of an alias its key, None for no such alias, or KMS's refusal to tell."""

    setting: Setting
    aliases: dict[str, Key | AwsError | None]


def rule_aliases(rule: Rule) -> tuple[str, ...]:
    """The aliases that the rule names, the managed key's first."""
    allowed = (name for name in rule.require.allowed_keys if name.startswith("alias/"))
    return tuple(dict.fromkeys((rule.managed_key.alias, *allowed)))


def glance_reads(reach: Reach, rule: Rule) -> list[Read]:
    """The first round, to be gathered, alone or beside the state; `glance` makes sense of the answers."""

    def describe(alias: str) -> Read:
        return lambda: _unless_closed(_bound(reach.keys.describe, alias))

    return [reach.xray.get, *(describe(alias) for alias in rule_aliases(rule))]


def glance(rule: Rule, answers: list[Any]) -> Glance:
    """The answers of `glance_reads`, in their order."""
    setting, *keys = answers
    return Glance(setting, dict(zip(rule_aliases(rule), keys, strict=True)))


def read_key(gather: Gather, reach: Reach, key_arn: str) -> Key | None:
    """All that KMS tells of one of the target's own customer keys; None where there is none."""
    reads = [_bound(reach.keys.describe, key_arn), *(read for _, read in _depths(reach, key_arn))]
    return _joined(*gather(reads))


def observe(
    gather: Gather,
    reach: Reach,
    rule: Rule,
    state: TargetState,
    seen: Glance,
    now: datetime,
    *,
    deep: bool,
    ask_use: bool,
) -> Observation:
    """Complete a glance. `deep` reads policy, rotation and tags too; `ask_use` asks X-Ray whether it is used at all."""
    setting = _resolved(reach, seen.setting)
    meant = seen.aliases[rule.managed_key.alias]
    if isinstance(meant, AwsError) and state.managed_key is None:
        raise meant
    keys: dict[str, Key | None] = {key.arn: key for key in seen.aliases.values() if isinstance(key, Key)}
    aliases = {alias: _arn_of(key) for alias, key in seen.aliases.items()}
    found = Observation(now, setting, keys, aliases, deep=deep)

    wanted = managed_key(state, found, rule)
    own = [arn for arn in dict.fromkeys((wanted, setting.key_arn)) if arn and _is_own(arn, reach)]
    foreign = setting.key_arn if setting.key_arn and setting.key_arn not in own else None

    def describe(arn: str) -> Read:
        read = _bound(reach.keys.describe, arn)
        return (lambda: _unless_closed(read)) if is_ruled_out(arn, state, found, rule) else read

    reads: list[tuple[str, str, Read]] = []
    for arn in own:
        if arn not in keys:
            reads.append((arn, "key", describe(arn)))
        if deep and (arn == wanted or arn in allowed_arns(state, found, rule, (arn,))) and _is_customers(keys.get(arn)):
            reads += [(arn, what, read) for what, read in _depths(reach, arn)]
    if foreign and not rule.require.same_account:
        reads.append((foreign, "key", describe(foreign)))
    if ask_use and setting.type is EncryptionType.NONE:
        reads.append(("", "use", lambda: _unless_closed(lambda: reach.xray.in_use(now))))
    answers = dict(zip(((arn, what) for arn, what, _ in reads), gather([read for _, _, read in reads]), strict=True))
    use = answers.pop(("", "use"), None)
    use_problem = use.problem if isinstance(use, AwsError) else None
    closed = frozenset(arn for (arn, _), answer in answers.items() if isinstance(answer, AwsError))
    for arn in (*own, *([foreign] if foreign else [])):
        if arn in closed:
            continue
        depths = (answers.get((arn, what)) for what in DEPTHS)
        keys[arn] = _joined(answers.get((arn, "key"), keys.get(arn)), *depths)
    return replace(found, keys=keys, closed=closed, in_use=None if use_problem else use, use_problem=use_problem)


def _depths(reach: Reach, arn: str) -> list[tuple[str, Read]]:
    """What KMS tells of a key beyond DescribeKey, one call each, in the order of DEPTHS."""
    reads = (
        lambda: _unless_missing(_bound(reach.keys.policy, arn)),
        lambda: _rotation(reach, arn),
        lambda: _tags(reach, arn),
    )
    return list(zip(DEPTHS, reads, strict=True))


def _resolved(reach: Reach, setting: Setting) -> Setting:
    """X-Ray answers with the key's ARN; should it ever answer with less, KMS tells what is meant."""
    if setting.type is not EncryptionType.KMS or not setting.key_arn or setting.key_arn.startswith("arn:"):
        return setting
    key = reach.keys.describe(setting.key_arn)
    return replace(setting, key_arn=key.arn if key else None)


def _is_own(arn: str, reach: Reach) -> bool:
    return arn_part(arn, 4) == reach.target.account


def _is_customers(key: Key | None) -> bool:
    return key is None or key.manager == "CUSTOMER"


def _bound(read: Callable[[str], Any], arn: str) -> Read:
    return lambda: read(arn)


def _arn_of(key: Key | AwsError | None) -> str | None:
    return CLOSED_KEY if isinstance(key, AwsError) else key.arn if key else None


def _unless_closed(read: Read) -> Any:
    """The answer, or KMS's refusal as a value: whether it matters is for the caller to say."""
    try:
        return read()
    except AwsError as error:
        if error.code in DENIED:
            return error
        raise


def _unless_missing(read: Read) -> Any:
    try:
        return read()
    except AwsError as error:
        if error.code == MISSING:
            return MISSING
        raise


def _rotation(reach: Reach, arn: str) -> Any:
    try:
        return _unless_missing(_bound(reach.keys.rotation, arn))
    except AwsError as error:
        if error.code in ROTATION_UNKNOWN:
            return None, None
        raise


def _tags(reach: Reach, arn: str) -> Any:
    """The tags, or the code of why they may not be read: the key is then neither ours to change nor suppressed."""
    try:
        return _unless_missing(_bound(reach.keys.tags, arn))
    except AwsError as error:
        if error.problem.retryable:
            raise
        return error.code


def _joined(key: Key | None, policy: Any, rotation: Any, tags: Any) -> Key | None:
    if key is None or MISSING in (policy, rotation, tags):
        # KMS shows a new key, and the end of an old one, not to all reads at once: half a key is none to rely on.
        return None
    turns, days = rotation or (None, None)
    # A key that is not enabled tells no rotation worth acting on: it is judged once it is enabled again.
    if key.state != "Enabled":
        turns, days = None, None
    refused = tags if isinstance(tags, str) else None
    return replace(
        key,
        policy=policy,
        rotation=turns,
        rotation_days=days,
        tags=None if refused else tags,
        tags_error=refused,
    )
