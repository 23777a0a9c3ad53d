"""What the tables hold, and the AWS around them, as text: so that one version's can be kept and read by the next."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from chalicelib.auditlog import hashchain
from chalicelib.auditlog.keyrows import KeyRow
from chalicelib.domain.model import EncryptionType, Key, Target
from tests.simulation.fakes import Tables
from tests.simulation.scenarios import Stage
from tests.simulation.world import Kms, Place

HERE = Path(__file__).parent


def dumped(scene: Stage) -> dict[str, Any]:
    """A scene as JSON has it: states and records as the very text that was stored."""
    tables = scene.tables
    return {
        "now": scene.world.now,
        "last_id": scene.world.new_id("id"),
        "places": {
            str(target): {
                "type": place.type.value,
                "key_arn": place.key_arn,
                "keys": [msgspec.to_builtins(key) for key in place.kms.keys.values()],
                "aliases": dict(place.kms.aliases),
            }
            for target, place in scene.world.places.items()
        },
        "states": {
            name: {"version": version, "state": state.decode(), "due": due.isoformat() if due else None}
            for name, (version, state, due) in tables.states.items()
        },
        "rows": {
            name: [
                {"sk": row.sk, "body": row.body.decode(), "hash": row.hash, "index": dict(row.index)} for row in rows
            ]
            for name, rows in tables.rows.items()
        },
        "markers": sorted(list(marker) for marker in tables.markers),
        "keys": [[target, row.sk, row.seq, row.how] for (target, _), row in sorted(tables.keys.items())],
    }


def load(name: str, scene: Stage) -> None:
    """Put what a file beside this module holds into a scene that has just begun."""
    kept = json.loads((HERE / name).read_text("utf-8"))
    scene.world.now = kept["now"]
    while scene.world.new_id("id") != kept["last_id"]:
        pass  # ids go on where they ended
    for target, answer in kept["places"].items():
        keys = {key.arn: key for key in (msgspec.convert(each, Key) for each in answer["keys"])}
        place = Place(EncryptionType(answer["type"]), answer["key_arn"], history=[Kms(keys, answer["aliases"])])
        scene.world.places[Target.parse(target)] = place
    tables: Tables = scene.tables
    for target, item in kept["states"].items():
        due = datetime.fromisoformat(item["due"]) if item["due"] else None
        tables.states[target] = (item["version"], item["state"].encode(), due)
    for target, rows in kept["rows"].items():
        tables.rows[target] = [
            hashchain.StoredRow(target, row["sk"], row["body"].encode(), row["hash"], row["index"]) for row in rows
        ]
    tables.markers = {(target, event_id) for target, event_id in kept["markers"]}
    # Formats 1 and 2 had no key rows.
    tables.keys = {(target, sk): KeyRow(sk, seq, how) for target, sk, seq, how in kept.get("keys", ())}
    first = [json.loads(rows[0]["body"]) for rows in kept["rows"].values() if rows]
    if any("format" not in record for record in first):
        scene.witness.former = frozenset(tables.markers)
    tables.heads = {target: (len(rows), rows[-1].hash) for target, rows in tables.rows.items()}
