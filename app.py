"""Chalice wiring: which trigger calls what. The loop is in `chalicelib`, and everything else is too."""

from __future__ import annotations

from typing import Any

from chalice.app import BaseLambdaEvent, Chalice

from chalicelib import entry


class UnreadEvent(BaseLambdaEvent):
    """An event as Lambda handed it over.

    Chalice's own event classes look their fields up at once, so that an event without one of them would be lost in a
    KeyError before the guard could put it on record.
    """

    def _extract_attributes(self, event_dict: Any) -> None:
        """Look at nothing: the guard's own readers do."""


app = Chalice(app_name="xray-guard", configure_logs=False)


@app.on_cw_event(
    {
        "source": ["aws.xray"],
        "detail-type": ["AWS API Call via CloudTrail"],
        "detail": {"eventSource": ["xray.amazonaws.com"], "eventName": ["PutEncryptionConfig"]},
    }
)
def on_change(event: UnreadEvent) -> Any:
    """Somebody called PutEncryptionConfig."""
    return entry.on_change(event.to_dict(), event.context)


@app.on_cw_event(
    {
        "source": ["aws.kms"],
        "detail-type": [
            "AWS API Call via CloudTrail",
            "AWS Service Event via CloudTrail",
            "KMS CMK Deletion",
            "KMS Imported Key Material Expiration",
        ],
        # KMS's own notices have no event name, and a call that failed has changed nothing.
        "detail": {
            "eventName": [
                "CancelKeyDeletion",
                "CreateAlias",
                "DeleteAlias",
                "DeleteExpiredKeyMaterial",
                "DeleteImportedKeyMaterial",
                "DeleteKey",
                "DisableKey",
                "DisableKeyRotation",
                "EnableKey",
                "EnableKeyRotation",
                "PutKeyPolicy",
                "ScheduleKeyDeletion",
                "TagResource",
                "UntagResource",
                "UpdateAlias",
                {"exists": False},
            ],
            "errorCode": [{"exists": False}],
        },
    }
)
def on_key_change(event: UnreadEvent) -> Any:
    """Somebody, or KMS itself, changed a key, an alias or a key's tags."""
    return entry.on_key_change(event.to_dict(), event.context)


@app.schedule("rate(1 minute)")
def tick(event: UnreadEvent) -> Any:
    """Take up what is due."""
    return entry.tick(event.to_dict(), event.context)


@app.schedule("rate(1 hour)")
def sweep(event: UnreadEvent) -> Any:
    """Look at every target."""
    return entry.sweep(event.to_dict(), event.context)


for handler in (on_change, on_key_change, tick, sweep):
    handler.event_class = UnreadEvent
