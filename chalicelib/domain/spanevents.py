"""Read from an event what it changed about spans or about copies of traces.

Calls of X-Ray, CloudWatch Logs and CloudWatch's observability access manager. The fields are those of their APIs, as
CloudTrail records them. CloudTrail's record of UpdateTraceSegmentDestination is not documented, so both spellings of
its fields are read.
"""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.domain.fields import KEY_CHARS, NAME_CHARS, as_list, as_object, as_text
from chalicelib.domain.model import Effect, Subject, arn_part
from chalicelib.domain.spans import SPANS_GROUP, TRACES

SOURCES: Mapping[str, str] = {
    "UpdateTraceSegmentDestination": "xray",
    "AssociateKmsKey": "logs",
    "DisassociateKmsKey": "logs",
    "DeleteLogGroup": "logs",
    "CreateLink": "oam",
    "UpdateLink": "oam",
    "DeleteLink": "oam",
}
"""The calls that change where spans and copies of traces go, each with the service that has it."""

MOST_TYPES = 64


def read_span_effect(name: str, detail: Mapping[str, object]) -> Effect | None:
    """Return what a call of SOURCES changed; None if it is about another log group, or copies no traces."""
    request, response = as_object(detail.get("requestParameters")), as_object(detail.get("responseElements"))
    match name:
        case "UpdateTraceSegmentDestination":
            named = _either(request, "destination") or _either(response, "destination")
            return Effect(Subject.SPANS, None, named)
        case "AssociateKmsKey" | "DisassociateKmsKey" | "DeleteLogGroup":
            if not _names_group(request):
                return None
            gone = {"DisassociateKmsKey": "none", "DeleteLogGroup": "deleted"}
            return Effect(Subject.SPANS, SPANS_GROUP, gone.get(name) or as_text(request.get("kmsKeyId"), KEY_CHARS))
        case "CreateLink" | "UpdateLink":
            types = as_list(request.get("resourceTypes"), MOST_TYPES)
            copies = TRACES in types
            if not copies and name == "CreateLink":
                return None
            sink = as_text(response.get("sinkArn") or request.get("sinkIdentifier"), KEY_CHARS) or ""
            to = arn_part(sink, 4) or "another account"
            return Effect(Subject.LINKS, _link(request, response), to if copies else "no traces")
        case "DeleteLink":
            return Effect(Subject.LINKS, _link(request, response), "deleted")
    return None


def _names_group(request: Mapping[str, object]) -> bool:
    """Whether the log group is the spans'. AssociateKmsKey and DisassociateKmsKey also take its ARN."""
    arn = as_text(request.get("resourceIdentifier"), KEY_CHARS) or ""
    return (
        request.get("logGroupName") == SPANS_GROUP or arn_part(arn, 5).removesuffix(":*") == f"log-group:{SPANS_GROUP}"
    )


def _link(request: Mapping[str, object], response: Mapping[str, object]) -> str | None:
    return as_text(response.get("arn") or request.get("identifier"), KEY_CHARS)


def _either(fields: Mapping[str, object], name: str) -> str | None:
    return as_text(fields.get(name) or fields.get(name.capitalize()), NAME_CHARS)
