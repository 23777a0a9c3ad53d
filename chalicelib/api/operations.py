"""The operations of the REST API: each route with its query parameters and its responses."""

from __future__ import annotations

from msgspec import Struct

from chalicelib.api.queries import LogQuery, NoQuery, SummaryQuery, TargetsQuery


class Operation(Struct, frozen=True):
    """One route. `response` names the schema of its successful response, `errors` its additional status codes."""

    name: str
    method: str
    path: str
    summary: str
    response: str
    query: type[Struct] = NoQuery
    errors: tuple[int, ...] = ()
    status: int = 200


OPERATIONS = (
    Operation("incidents", "GET", "/v1/incidents", "Incidents, newest first", "IncidentPage", LogQuery),
    Operation("incident", "GET", "/v1/incidents/{id}", "One incident with its records", "Incident", errors=(404,)),
    Operation("records", "GET", "/v1/records", "Records of the audit log, newest first", "RecordPage", LogQuery),
    Operation(
        "targets",
        "GET",
        "/v1/targets",
        "The current state of every target, by account and Region",
        "TargetPage",
        TargetsQuery,
    ),
    Operation(
        "target", "GET", "/v1/targets/{account}/{region}", "The current state of one target", "Target", errors=(404,)
    ),
    Operation("summary", "GET", "/v1/summary", "Figures by UTC day, at most 400 of them", "Summary", SummaryQuery),
    Operation("policy", "GET", "/v1/policy", "The policy in force", "Policy"),
    Operation("openapi", "GET", "/v1/openapi.json", "This document", "OpenApi"),
    Operation(
        "reconcile",
        "POST",
        "/v1/targets/{account}/{region}/reconcile",
        "Request a check of a target; the guard checks it within two minutes",
        "Accepted",
        errors=(404, 413, 415),
        status=202,
    ),
)
BY_NAME = {operation.name: operation for operation in OPERATIONS}
