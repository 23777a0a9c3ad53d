"""Chalice wiring: which trigger calls what. The loop is in `chalicelib`, and everything else is too."""

from __future__ import annotations

from typing import Any

from chalice.app import BaseLambdaEvent, Chalice, IAMAuthorizer, Response

from chalicelib import entry


class UnreadEvent(BaseLambdaEvent):
    """An event as Lambda handed it over.

    Chalice's own event classes look their fields up at once, so that an event without one of them would be lost in a
    KeyError before the guard could put it on record.
    """

    def _extract_attributes(self, event_dict: Any) -> None:
        """Look at nothing: the guard's own readers do."""


app = Chalice(app_name="xray-guard", configure_logs=False)

# Whatever the caller says of a body, the API judges it and answers in its own form.
route = {"authorizer": IAMAuthorizer(), "content_types": []}


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


@app.on_cw_event(entry.KEY_CHANGES)
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


def answered(operation: str) -> Response:
    """What the API answers. Imported only when it is asked, for the other functions start without it."""
    from chalicelib.api import handlers

    answer = handlers.respond(operation, app.current_request, app.lambda_context)
    return Response(answer.body, {**answer.headers}, answer.status)


@app.route("/v1/incidents", **route)
def incidents() -> Response:
    """Incidents, the last opened first."""
    return answered("incidents")


@app.route("/v1/incidents/{id}", **route)
def incident(id: str) -> Response:
    """One incident with its records."""
    return answered("incident")


@app.route("/v1/records", **route)
def records() -> Response:
    """Records of the audit log, newest first."""
    return answered("records")


@app.route("/v1/targets", **route)
def targets() -> Response:
    """The present state of every target."""
    return answered("targets")


@app.route("/v1/targets/{account}/{region}", **route)
def target(account: str, region: str) -> Response:
    """The present state of one target."""
    return answered("target")


@app.route("/v1/summary", **route)
def summary() -> Response:
    """Figures by day."""
    return answered("summary")


@app.route("/v1/policy", **route)
def policy() -> Response:
    """The policy in force."""
    return answered("policy")


@app.route("/v1/openapi.json", **route)
def openapi() -> Response:
    """What this API is."""
    return answered("openapi")


@app.route("/v1/targets/{account}/{region}/reconcile", methods=["POST"], **route)
def reconcile(account: str, region: str) -> Response:
    """Ask the guard to look at a target."""
    return answered("reconcile")
