"""Put the functions' event patterns into the templates that repeat them.

`app.py` has the only copy of each pattern. Chalice writes it into the rule on the default bus. The rules on the guard's
bus and the forwarding rule of the other Regions refer to it as `${patterns/on_change}`, with the function's name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shipping.rights import fill


def render(package: Path) -> None:
    """Fill in the patterns in `sam.json` and `spoke-region.json`, in place."""
    sam = json.loads((package / "sam.json").read_text("utf-8"))
    patterns = {f"${{patterns/{name}}}": pattern for name, pattern in patterns_of(sam).items()}
    for template in (package / "sam.json", package / "spoke-region.json"):
        filled = fill(json.loads(template.read_text("utf-8")), patterns)
        template.write_text(json.dumps(filled, indent=2) + "\n", "utf-8")


def patterns_of(sam: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the pattern of each function that events on the default bus invoke, by the function's name in `app.py`."""
    return {
        function["Properties"]["Handler"].removeprefix("app."): event["Properties"]["Pattern"]
        for function in sam["Resources"].values()
        if function["Type"] == "AWS::Serverless::Function"
        for event in function["Properties"].get("Events", {}).values()
        if event["Type"] == "CloudWatchEvent"
    }
