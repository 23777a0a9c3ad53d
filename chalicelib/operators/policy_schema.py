"""Whether a policy document has the form that its JSON Schema requires, with findings that a person can act on."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema
from jsonschema.exceptions import ValidationError

from chalicelib.operators.policy_findings import Finding, pointer, shown


def form_findings(document: bytes, schema: bytes) -> list[Finding]:
    """Check the bytes of a document against the bytes of the schema. An empty list means that it has the right form."""
    try:
        read = json.loads(document, object_pairs_hook=_Object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return [Finding("", f"line {error.lineno}, column {error.colno}", f"not JSON: {error.msg}")]
    except (ValueError, RecursionError) as error:
        return [Finding("", "the document", f"not JSON: {error}")]
    found = [*_duplicate_keys(read), *_control_characters(read), *_schema_findings(read, json.loads(schema))]
    # The validator reports an object that lacks several keys once for each of them, each time with every key.
    return list(dict.fromkeys(found))


class _Object(dict[str, Any]):
    """A JSON object that keeps the names of its duplicate keys."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.duplicates = sorted({key for key in keys if keys.count(key) > 1})


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _duplicate_keys(read: object, path: tuple[str | int, ...] = ()) -> Iterator[Finding]:
    if isinstance(read, _Object):
        for key in read.duplicates:
            yield Finding(pointer((*path, key)), shown(read[key]), "duplicate key in its object; allowed: once")
    for step, child in _children(read):
        yield from _duplicate_keys(child, (*path, step))


def _control_characters(read: object, path: tuple[str | int, ...] = ()) -> Iterator[Finding]:
    # The schema's patterns do not: Python's `$` also matches before a final newline.
    if isinstance(read, str) and not read.isprintable():
        yield Finding(pointer(path), shown(read), "allowed: printable characters only")
    for step, child in _children(read):
        if isinstance(step, str) and not step.isprintable():
            yield Finding(pointer((*path, step)), shown(step), "allowed: a key of printable characters only")
        yield from _control_characters(child, (*path, step))


def _children(read: object) -> Iterable[tuple[str | int, object]]:
    if isinstance(read, dict):
        return tuple(read.items())
    return enumerate(read) if isinstance(read, list) else ()


def _schema_findings(read: object, schema: Any) -> Iterator[Finding]:
    validator = jsonschema.Draft202012Validator(schema)
    for error in sorted(validator.iter_errors(read), key=lambda error: [str(step) for step in error.absolute_path]):
        yield from _of_schema_error(error)


def _of_schema_error(error: ValidationError) -> Iterator[Finding]:
    path: tuple[str | int, ...] = tuple(error.absolute_path)
    instance: Any = error.instance
    required: Any = error.validator_value
    known = sorted(error.schema.get("properties", ())) if isinstance(error.schema, dict) else []
    match error.validator:
        case "additionalProperties" if known:
            for key in sorted(instance.keys() - set(known)):
                near = difflib.get_close_matches(key, known, 1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                yield Finding(
                    pointer((*path, key)),
                    shown(instance[key]),
                    f"unknown key{hint}; allowed: {', '.join(known)}",
                )
        case "required":
            for key in required:
                if key not in instance:
                    yield Finding(pointer((*path, key)), "absent", f"required; allowed: {_allowed_at(error, key)}")
        case "anyOf":
            yield from _of_alternatives(error)
        case "uniqueItems":
            yield Finding(pointer(path), shown(instance), "duplicate entry; allowed: each once")
        case _:
            # Where a tag key is not valid, the instance is the key itself.
            yield Finding(pointer(path), shown(instance), f"allowed: {_description(error.schema)}")


def _of_alternatives(error: ValidationError) -> Iterator[Finding]:
    """Report the error in one entry of a list, rather than that the list matches no alternative."""
    deeper = [inner for inner in error.context or () if inner.path and isinstance(error.instance, list)]
    if not deeper:
        yield Finding(
            pointer(tuple(error.absolute_path)), shown(error.instance), f"allowed: {_description(error.schema)}"
        )
    for inner in deeper:
        yield from _of_schema_error(inner)


def _allowed_at(error: ValidationError, key: str) -> str:
    properties = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
    if "description" in properties.get(key, {}):
        return str(properties[key]["description"])
    return "an object, unless the mode is off" if key in ("require", "managed_key") else "an object"


def _description(schema: object) -> str:
    return str(schema.get("description", schema)) if isinstance(schema, dict) else str(schema)
