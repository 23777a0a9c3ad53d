"""Whether a trail's event selectors include an event."""

from __future__ import annotations

from typing import Any


def logs_writes_of(selectors: dict[str, Any], source: str) -> bool:
    """Whether a trail's event selectors, basic or advanced, include management write events of the source.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/logging-management-events-with-cloudtrail.html
    """
    return any(
        one.get("IncludeManagementEvents", True)
        and one.get("ReadWriteType", "All") in ("All", "WriteOnly")
        and source not in one.get("ExcludeManagementEventSources", ())
        for one in selectors.get("EventSelectors") or ()
    ) or any(_advanced_matches(one, source) for one in selectors.get("AdvancedEventSelectors") or ())


def _advanced_matches(selector: dict[str, Any], source: str) -> bool:
    """A selector matches an event when each of its fields matches."""
    known = {"eventCategory": "Management", "readOnly": "false", "eventSource": source}
    names = {field["Field"] for field in selector.get("FieldSelectors", ())}
    return (
        "eventCategory" in names
        and all(
            _field_matches(field, known[field["Field"]])
            for field in selector.get("FieldSelectors", ())
            if field["Field"] in known
        )
        and not (names - known.keys() - {"eventType", "sessionCredentialFromConsole", "userIdentity.arn"})
    )


def _field_matches(field: dict[str, Any], value: str) -> bool:
    wanted = (
        ("Equals", lambda text: value == text),
        ("StartsWith", value.startswith),
        ("EndsWith", value.endswith),
    )
    unwanted = (
        ("NotEquals", lambda text: value == text),
        ("NotStartsWith", value.startswith),
        ("NotEndsWith", value.endswith),
    )
    given = [any(fits(text) for text in field[name]) for name, fits in wanted if field.get(name)]
    refused = [any(fits(text) for text in field[name]) for name, fits in unwanted if field.get(name)]
    return (not given or any(given)) and not any(refused)
