"""Observe a target: perform the planned reads, in two rounds of concurrent reads.

A failed read fails the whole observation: nothing is decided on a part of it. There are two exceptions. KMS may refuse
to describe a key that the rule rules out, or the key behind the alias of a recorded key: otherwise anybody could stop
the guard by pointing X-Ray or the alias at a key whose policy denies the guard. And if the guard may not read whether
X-Ray is in use, the target is judged as in use, because this fact can only excuse a target.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec.structs import replace

from chalicelib.domain.errors import AwsError
from chalicelib.domain.model import EncryptionType, Setting
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Rule
from chalicelib.domain.ports import Gather, Reach
from chalicelib.domain.reading import Glance, ReadPlan, outlined
from chalicelib.domain.tagvalue import Tags
from chalicelib.loop.readkey import DETAILS, Read, describe, detail_reads, joined, unless_refused

USE = ("", "use")


def glance_reads(reach: Reach, rule: Rule) -> list[Read]:
    """Return the reads of the first round, to be gathered alone or with the state; `glance` interprets the results."""

    def of(alias: str) -> Read:
        return lambda: (alias, unless_refused(describe(reach, alias)))

    return [reach.xray.get, *(of(alias) for alias in rule.aliases)]


def glance(reach: Reach, answers: list[Any]) -> Glance:
    """Return the glance from the results of `glance_reads`, in the same order."""
    setting, *keys = answers
    return Glance(_resolved(reach, setting), dict(keys))


def observe(gather: Gather, reach: Reach, first: Glance, plan: ReadPlan, now: datetime) -> Observation:
    """Complete a glance with the reads of the plan."""
    reads: list[tuple[tuple[str, str], Read]] = []
    for each in plan.keys:
        if each.describe:
            read = describe(reach, each.arn)
            reads.append(((each.arn, "key"), _refusable(read) if each.may_refuse else read))
        if each.details:
            reads += [((each.arn, what), read) for what, read in detail_reads(reach, each.arn)]
    if plan.use:
        reads.append((USE, _refusable(lambda: reach.xray.in_use(now))))
    answers = dict(zip((what for what, _ in reads), gather([read for _, read in reads]), strict=True))
    use = answers.pop(USE, None)
    use_problem = use.problem if isinstance(use, AwsError) else None
    closed = frozenset(arn for (arn, _), answer in answers.items() if isinstance(answer, AwsError))
    seen = outlined(first, now, deep=plan.deep)
    keys = dict(seen.keys)
    for each in plan.keys:
        if each.arn not in closed:
            details = (answers.get((each.arn, what)) for what in DETAILS)
            keys[each.arn] = joined(answers.get((each.arn, "key"), keys.get(each.arn)), *details)
    return replace(seen, keys=keys, closed=closed, in_use=None if use_problem else use, use_problem=use_problem)


def principal_tags(reach: Reach, arns: tuple[str, ...]) -> dict[str, Tags | None]:
    """Return the IAM tags of roles and users; None if they cannot be read, which counts against a break-glass."""
    return {arn: _tags_of(reach, arn) for arn in arns}


def _refusable(read: Read) -> Read:
    return lambda: unless_refused(read)


def _resolved(reach: Reach, setting: Setting) -> Setting:
    """X-Ray returns the key's ARN; if it ever returns an id or an alias, KMS resolves it."""
    if setting.type is not EncryptionType.KMS or not setting.key_arn or setting.key_arn.startswith("arn:"):
        return setting
    key = reach.keys.describe(setting.key_arn)
    return replace(setting, key_arn=key.arn if key else None)


def _tags_of(reach: Reach, principal_arn: str) -> Tags | None:
    try:
        return reach.principals.tags(principal_arn)
    except AwsError:
        return None
