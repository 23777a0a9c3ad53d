"""Observe a target: perform the planned reads, in two rounds of concurrent reads.

A failed read fails the whole observation: nothing is decided on a part of it. There are exceptions. KMS may refuse
to describe a key that the rule rules out, or the key behind the alias of a recorded key: otherwise anybody could stop
the guard by pointing X-Ray or the alias at a key whose policy denies the guard. And if the guard may not read whether
X-Ray is in use, the target is judged as in use, because this fact can only excuse a target. What cannot be read of
spans and of links never keeps the setting from being judged: the record says that it is not known.
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
from chalicelib.domain.reading import Glance, ReadPlan, key_of_spans, outlined
from chalicelib.domain.spans import Links, Spans, of_traces
from chalicelib.domain.stored import TargetState
from chalicelib.domain.tagvalue import Tags
from chalicelib.loop.readkey import DETAILS, Read, describe, detail_reads, joined, unless_refused

USE, GROUP, LINKS = ("", "use"), ("", "group"), ("", "links")

NOT_OFFERED = frozenset({"UnknownOperationException", "UnknownOperation", "InvalidAction", "404"})
"""The codes by which a Region or partition says that it does not have an operation."""


def glance_reads(reach: Reach, rule: Rule) -> list[Read]:
    """Return the reads of the first round, to be gathered alone or with the state; `glance` interprets the results."""

    def of(alias: str) -> Read:
        return lambda: (alias, unless_refused(describe(reach, alias)))

    return [reach.xray.get, lambda: _destination(reach), *(of(alias) for alias in rule.aliases)]


def glance(reach: Reach, answers: list[Any]) -> Glance:
    """Return the glance from the results of `glance_reads`, in the same order."""
    setting, spans, *keys = answers
    return Glance(_resolved(reach, setting), dict(keys), spans)


def observe(
    gather: Gather, reach: Reach, rule: Rule, state: TargetState, first: Glance, plan: ReadPlan, now: datetime
) -> Observation:
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
    if plan.group:
        reads.append((GROUP, lambda: _group(reach, first.spans)))
    if plan.links:
        reads.append((LINKS, lambda: _links(reach, now)))
    answers = dict(zip((what for what, _ in reads), gather([read for _, read in reads]), strict=True))
    use, spans, links = answers.pop(USE, None), answers.pop(GROUP, first.spans), answers.pop(LINKS, None)
    use_problem = use.problem if isinstance(use, AwsError) else None
    closed = frozenset(arn for (arn, _), answer in answers.items() if isinstance(answer, AwsError))
    seen = outlined(first, now, deep=plan.deep)
    keys = dict(seen.keys)
    for each in plan.keys:
        if each.arn not in closed:
            details = (answers.get((each.arn, what)) for what in DETAILS)
            keys[each.arn] = joined(answers.get((each.arn, "key"), keys.get(each.arn)), *details)
    in_use = None if use_problem else use
    seen = replace(seen, keys=keys, closed=closed, in_use=in_use, use_problem=use_problem, spans=spans, links=links)
    more = key_of_spans(reach.target, rule, state, seen) if spans.group else None
    if more is None:
        return seen
    try:
        return replace(seen, keys={**keys, more: reach.keys.describe(more)})
    except AwsError as error:
        return replace(seen, spans=replace(spans, problem=error.problem))


def principal_tags(reach: Reach, arns: tuple[str, ...]) -> dict[str, Tags | None]:
    """Return the IAM tags of roles and users; None if they cannot be read, which counts against a break-glass."""
    return {arn: _tags_of(reach, arn) for arn in arns}


def read_spans(reach: Reach) -> Spans:
    """Return where spans are stored, with the log group."""
    spans = _destination(reach)
    return _group(reach, spans) if spans.are_in_logs else spans


def _destination(reach: Reach) -> Spans:
    try:
        return Spans(*reach.xray.spans_destination())
    except AwsError as error:
        return Spans() if error.code in NOT_OFFERED else Spans(problem=error.problem)


def _group(reach: Reach, spans: Spans) -> Spans:
    try:
        return replace(spans, group=reach.logs.group())
    except AwsError as error:
        return replace(spans, problem=error.problem)


def _links(reach: Reach, now: datetime) -> Links:
    try:
        return Links(now, of_traces(reach.links.all()))
    except AwsError as error:
        return Links(now, problem=None if error.code in NOT_OFFERED else error.problem)


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
