"""The judgement of a target for operators: the assessment, with the plan that enforcing would follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chalicelib.domain.model import Target
from chalicelib.domain.reasons import Outcome, Problem

if TYPE_CHECKING:
    from chalicelib.domain.model import Setting
    from chalicelib.domain.steps import Step
    from chalicelib.loop.dry_run import Assessment

ACCEPTABLE = {Outcome.COMPLIANT: True, Outcome.IGNORED: None}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The judgement of a target. `compliant` is None where no rule applies to it."""

    target: Target
    outcome: Outcome
    compliant: bool | None
    rule: str | None = None
    mode: str | None = None
    reason: str | None = None
    message: str | None = None
    violations: tuple[str, ...] = ()
    setting: Setting | None = None
    managed_key: str | None = None
    plan: tuple[Step, ...] = ()
    blocked: Problem | None = None

    @property
    def new_keys(self) -> int:
        """How many customer managed keys the plan creates."""
        return sum(step.name.value == "CreateKey" for step in self.plan)

    def to_json(self) -> dict[str, Any]:
        """The fields by their names, with the target's account and Region."""
        import msgspec

        document: dict[str, Any] = msgspec.to_builtins(self)
        account, region = self.target.account, self.target.region
        return {**document, "target": str(self.target), "account": account, "region": region, "new_keys": self.new_keys}


def judgement_of(assessment: Assessment, partition: str) -> Judgement:
    """Convert an assessment, with the plan that enforcing would follow even where remediation is suspended."""
    from chalicelib.domain.steps import plan

    decision, rule, seen = assessment.decision, assessment.rule, assessment.seen
    steps, blocked = decision.steps, decision.blocked
    if not steps and decision.violations and rule is not None and seen is not None:
        steps, stopped = plan(assessment.target, rule, assessment.state, seen, partition)
        blocked = blocked or (stopped.problem if stopped else None)
    return Judgement(
        target=assessment.target,
        outcome=decision.outcome,
        compliant=ACCEPTABLE.get(decision.outcome, False),
        rule=rule.id if rule else None,
        mode=rule.mode.value if rule else None,
        reason=decision.reason,
        message=decision.message,
        violations=tuple(violation.value for violation in decision.violations),
        setting=seen.setting if seen else None,
        managed_key=assessment.state.managed_key,
        plan=steps,
        blocked=blocked,
    )


def verdict(judgement: Judgement) -> str:
    """The label of a judgement that changed nothing: a planned remediation is NONCOMPLIANT."""
    match judgement.outcome:
        case Outcome.REMEDIATING:
            return "NONCOMPLIANT"
        case outcome:
            return f"{outcome.value} ({judgement.reason})" if judgement.reason else outcome.value
