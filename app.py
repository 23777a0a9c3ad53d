"""The Chalice application: it routes events, schedules and API requests to `chalicelib`."""

from __future__ import annotations

from typing import Any

from chalice.app import BaseLambdaEvent, Chalice, IAMAuthorizer, Response

from chalicelib import entry


class UnreadEvent(BaseLambdaEvent):
    """An event as Lambda delivered it.

    Chalice's own event classes read their fields at once, so an event without one of them would end in a KeyError
    before the guard could record it.
    """

    def _extract_attributes(self, event_dict: Any) -> None:
        """Read nothing: the guard parses events itself."""


app = Chalice(app_name="xray-guard", configure_logs=False)

# The API itself checks content types, so that its errors have its own format.
route = {"authorizer": IAMAuthorizer(), "content_types": []}


@app.on_cw_event(
    {
        "source": ["aws.xray"],
        "detail-type": ["AWS API Call via CloudTrail"],
        "detail": {"eventSource": ["xray.amazonaws.com"], "eventName": ["PutEncryptionConfig"]},
    }
)
def on_change(event: UnreadEvent) -> Any:
    """A principal called PutEncryptionConfig."""
    return entry.on_change(event.to_dict(), event.context)


@app.on_cw_event(entry.KEY_CHANGES)
def on_key_change(event: UnreadEvent) -> Any:
    """A principal, or KMS itself, changed a key, an alias or a key's tags, where spans go, or a link."""
    return entry.on_key_change(event.to_dict(), event.context)


@app.schedule("rate(1 minute)")
def tick(event: UnreadEvent) -> Any:
    """The scheduled check: process the targets that are due."""
    return entry.tick(event.to_dict(), event.context)


@app.schedule("rate(1 hour)")
def sweep(event: UnreadEvent) -> Any:
    """Check every target."""
    return entry.sweep(event.to_dict(), event.context)


@app.schedule("rate(1 hour)")
def event_history(event: UnreadEvent) -> Any:
    """Record the changes whose events were lost."""
    return entry.event_history(event.to_dict(), event.context)


for handler in (on_change, on_key_change, tick, sweep, event_history):
    handler.event_class = UnreadEvent


def respond(operation: str) -> Response:
    """The response of the API. The API is imported here, because the other functions start without it."""
    from chalicelib.api import handlers

    response = handlers.respond(operation, app.current_request, app.lambda_context)
    return Response(response.body, {**response.headers}, response.status)


@app.route("/v1/incidents", **route)
def incidents() -> Response:
    """Incidents, newest first."""
    return respond("incidents")


@app.route("/v1/incidents/{id}", **route)
def incident(id: str) -> Response:
    """One incident with its records."""
    return respond("incident")


@app.route("/v1/records", **route)
def records() -> Response:
    """Records of the audit log, newest first."""
    return respond("records")


@app.route("/v1/targets", **route)
def targets() -> Response:
    """The current state of every target."""
    return respond("targets")


@app.route("/v1/targets/{account}/{region}", **route)
def target(account: str, region: str) -> Response:
    """The current state of one target."""
    return respond("target")


@app.route("/v1/summary", **route)
def summary() -> Response:
    """Figures by day."""
    return respond("summary")


@app.route("/v1/policy", **route)
def policy() -> Response:
    """The policy in force."""
    return respond("policy")


@app.route("/v1/openapi.json", **route)
def openapi() -> Response:
    """The OpenAPI document of this API."""
    return respond("openapi")


@app.route("/v1/targets/{account}/{region}/reconcile", methods=["POST"], **route)
def reconcile(account: str, region: str) -> Response:
    """Request a check of a target."""
    return respond("reconcile")
