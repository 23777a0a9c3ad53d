"""The number of the format in which a release stores its values."""

from __future__ import annotations

from msgspec import Struct

FIRST_FORMAT = 1
"""The format of what was stored before the format had a number."""

FORMAT = 3
"""The format of what this release stores. It reads this and all lower ones, and refuses a state of a higher one.

Raise it with a change of the stored values that an older release would misread, or would lose by storing a state again.
"""


class StoredFormat(Struct, frozen=True):
    """What every stored value of every release has."""

    target: str = ""
    format: int = FIRST_FORMAT
