"""Choose the managed key, and the keys that a rule allows by name alone."""

from __future__ import annotations

from collections.abc import Iterable

from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import KeyKind, Rule, arn_matches
from chalicelib.domain.stored import TargetState


def managed_key(state: TargetState, seen: Observation, rule: Rule) -> str | None:
    """Return the managed key's ARN: the recorded key, else the latest that the guard made, else the alias's key.

    So nobody can put another key in the place of the first one by moving the alias while the guard makes it.
    """
    own = state.managed_key or latest_made(state)
    if own:
        return own
    aliased = seen.aliases.get(rule.managed_key.alias)
    return aliased if aliased and aliased not in state.keys_retired else None


def latest_made(state: TargetState) -> str | None:
    """Return the latest key that the guard made and no operator gave up; None without one."""
    return next((arn for arn in reversed(state.keys_made) if arn not in state.keys_retired), None)


def adoption(state: TargetState, seen: Observation, rule: Rule) -> str | None:
    """Return the key to record as managed, if none is recorded and X-Ray uses it already or the rule has `ensure`."""
    arn = managed_key(state, seen, rule)
    meant = arn == seen.setting.key_arn or rule.managed_key.ensure
    return arn if state.managed_key is None and arn is not None and meant else None


def _is_allowed(arn: str, state: TargetState, seen: Observation, rule: Rule) -> bool:
    for allowed in rule.require.allowed_keys:
        if allowed == rule.managed_key.alias:
            # Once a managed key is recorded, the alias means that key: moving the alias does not change the rule.
            if arn == managed_key(state, seen, rule):
                return True
        elif allowed.startswith("alias/"):
            if seen.aliases.get(allowed) == arn:
                return True
        elif arn_matches(allowed, arn):
            return True
    return False


def allowed_arns(state: TargetState, seen: Observation, rule: Rule, arns: Iterable[str]) -> tuple[str, ...]:
    """Return those of the ARNs that the rule's `allowed_keys` cover, by name alone."""
    return tuple(arn for arn in arns if _is_allowed(arn, state, seen, rule))


def is_ruled_out(arn: str, state: TargetState, seen: Observation, rule: Rule) -> bool:
    """Whether the rule forbids the key by its name alone, unless it is an AWS managed key (which anybody may read)."""
    restricted = rule.require.key is KeyKind.CUSTOMER or rule.require.allowed_keys
    return bool(restricted) and not _is_allowed(arn, state, seen, rule)
