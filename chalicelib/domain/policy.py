"""The policy document as values: which rule governs a target, and what that rule asks.

Only a stamped document is ever loaded. The stamp is written by `policy_check.stamp` after the document was validated,
so nothing here validates again: it checks that the bytes are those that were stamped, and otherwise refuses. There is
no built-in policy to fall back on (P12).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from chalicelib.domain.model import Target
from chalicelib.domain.reasons import Reason

DOCUMENT_NAME = "policy.json"
STAMP_NAME = "policy.stamp.json"
SCHEMA_NAME = "policy.schema.json"
EVERY_READER: Literal["account"] = "account"
"""The `trace_readers` that lets every principal of the account decrypt, as long as it comes through X-Ray."""


class PolicyError(Exception):
    """There is no valid policy, so nothing may be done. `code` is stable; the text says what, where and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Mode(StrEnum):
    """How far a rule goes: put right, only say so, or leave alone."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    OFF = "off"


class When(StrEnum):
    """Whether a sweep judges a target that has never used encryption and shows no traces."""

    ALWAYS = "always"
    IN_USE = "in-use"


class KeyKind(StrEnum):
    """`customer`: a customer managed key. `any-kms`: the AWS managed key of X-Ray is enough."""

    CUSTOMER = "customer"
    ANY_KMS = "any-kms"


class Limits(Struct, frozen=True):
    """What one sweep may mutate at most, in targets, and the longest pause between two attempts, in minutes."""

    remediations_per_sweep: int = 50
    max_backoff_minutes: int = 30


class Require(Struct, frozen=True):
    """What the setting's key must be.

    `allowed_keys` are aliases (`alias/…`, resolved in the target), key ARNs and ARN globs. It is empty only under
    `any-kms`, where it then restricts nothing; the AWS managed key needs no entry there.
    """

    key: KeyKind = KeyKind.CUSTOMER
    allowed_keys: tuple[str, ...] = ()
    same_account: bool = True
    rotation: bool = True


class ManagedKey(Struct, frozen=True):
    """The key that the guard makes or adopts. `trace_readers` is `account`, or ARN globs of roles and users."""

    alias: str = "alias/xray-encryption"
    description: str = "X-Ray trace encryption"
    rotation_days: int = 365
    tags: Mapping[str, str] = field(default_factory=dict)
    trace_readers: Literal["account"] | tuple[str, ...] = EVERY_READER
    ensure: bool = False

    def __hash__(self) -> int:
        return hash(self.alias)  # not the tags, for a mapping has no hash; equality looks at everything


class BreakGlass(Struct, frozen=True):
    """The tag that suppresses the rule, for `max_hours` at most, set by those whose ARN one of `principals` matches."""

    tag: str
    max_hours: int
    principals: tuple[str, ...]


class Rule(Struct, frozen=True):
    """What holds for the targets that `accounts` and `regions` (globs) match.

    Only a rule that is `off` may leave out `require` and `managed_key`; their defaults are then never looked at.
    Without `break_glass` nothing suppresses the rule.
    """

    id: str
    accounts: tuple[str, ...]
    regions: tuple[str, ...]
    mode: Mode
    when: When = When.IN_USE
    require: Require = Require()
    managed_key: ManagedKey = field(default_factory=ManagedKey)
    break_glass: BreakGlass | None = None

    def governs(self, target: Target) -> bool:
        """Whether both globs match the target."""
        return any(glob_matches(glob, target.account) for glob in self.accounts) and any(
            glob_matches(glob, target.region) for glob in self.regions
        )


class Policy(Struct, frozen=True):
    """The whole document. `digest` is the SHA-256 of its bytes, in hexadecimal: the name of this very version.

    `document` is its text, so that the guard can put on the record what it enforced.
    """

    limits: Limits
    rules: tuple[Rule, ...]
    digest: str
    document: str = ""

    def rule_for(self, target: Target) -> Rule | None:
        """The first rule that matches; None means that the target is ungoverned."""
        return next((rule for rule in self.rules if rule.governs(target)), None)


class Stamp(Struct, frozen=True):
    """What `policy.stamp.json` holds: digests of the document and of the schema it was validated against."""

    sha256: str
    schema_sha256: str


class _Document(Struct, frozen=True):
    version: Literal[1]
    rules: tuple[Rule, ...]
    limits: Limits = Limits()


def load_stamped(folder: Path) -> Policy:
    """The policy in force: `policy.json` of the folder, if `policy.stamp.json` beside it vouches for these bytes.

    Raises PolicyError with code POLICY_ABSENT, POLICY_UNSTAMPED, POLICY_ALTERED or POLICY_UNREADABLE.
    """
    document_path, stamp_path = folder / DOCUMENT_NAME, folder / STAMP_NAME
    document = _read(document_path, Reason.POLICY_ABSENT, "put the policy document there and package again")
    stamp_bytes = _read(
        stamp_path, Reason.POLICY_UNSTAMPED, "package again: packaging validates the document and stamps it"
    )
    try:
        stamp = msgspec.json.decode(stamp_bytes, type=Stamp)
    except (ValueError, RecursionError) as error:
        raise PolicyError(
            Reason.POLICY_UNSTAMPED, f"the stamp {stamp_path} cannot be read ({error}); package again"
        ) from error
    digest = sha256_of(document)
    if digest != stamp.sha256:
        raise PolicyError(
            Reason.POLICY_ALTERED,
            f"{document_path} is not the document that was validated: its SHA-256 is {digest}, the stamp names "
            f"{stamp.sha256[:64]}; package again from the policy you mean",
        )
    try:
        return parse(document)
    except (ValueError, RecursionError) as error:
        raise PolicyError(
            Reason.POLICY_UNREADABLE,
            f"{document_path} was stamped but this code cannot read it ({error}); package document and code together",
        ) from error


def parse(document: bytes) -> Policy:
    """Read a document that was validated. Raises ValueError (msgspec's) for one of another shape."""
    read = msgspec.json.decode(document, type=_Document)
    return Policy(read.limits, read.rules, sha256_of(document), document.decode())


def sha256_of(content: bytes) -> str:
    """The SHA-256 of the bytes, in lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _read(path: Path, code: str, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise PolicyError(code, f"{path} does not exist; {remedy}") from error
    except OSError as error:
        raise PolicyError(Reason.POLICY_UNREADABLE, f"{path} cannot be read ({error.strerror}); {remedy}") from error


def glob_matches(pattern: str, text: str) -> bool:
    """Whether the whole text fits a pattern of literal characters, `*` (any run) and `?` (any one); case counts.

    Steps back to the latest star only, so no pattern takes longer than the product of the two lengths.
    """
    at = in_text = 0
    star = star_text = -1
    while in_text < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, star_text = at, in_text
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[in_text]):
            at += 1
            in_text += 1
        elif star >= 0:
            star_text += 1
            at, in_text = star + 1, star_text
        else:
            return False
    return pattern[at:].strip("*") == ""


def arn_matches(pattern: str, arn: str) -> bool:
    """Whether an ARN fits a pattern as IAM's ArnLike has it: each of the six colon-separated parts by itself.

    A star therefore never reaches over a colon, but for those within the last part. What has not six parts fits
    nothing.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    """
    wanted, parts = pattern.split(":", 5), arn.split(":", 5)
    return len(wanted) == 6 == len(parts) and all(map(glob_matches, wanted, parts))


def glob_covers(wider: str, narrower: str) -> bool:
    """Whether everything that fits the pattern `narrower` fits `wider`. True is certain; False may be over-careful."""
    literal = wider.rstrip("*")
    if "*" not in literal and "?" not in literal:
        # Nearly all patterns are literal, or so up to a star at their end, and this is asked very often.
        return narrower == wider if literal == wider else narrower.startswith(literal)
    while "**" in wider:
        # Several stars mean what one does; whoever writes a key policy could otherwise keep us here for hours.
        wider = wider.replace("**", "*")
    reach = {0}  # how far into `wider` one may be, having read the symbols of `narrower` so far
    for symbol in narrower:
        reach = _past_stars(wider, reach)
        reach = {at for at in reach if wider[at : at + 1] == "*"} | {
            at + 1
            for at in reach
            if at < len(wider) and (wider[at] == symbol or (wider[at] == "?" and symbol != "*")) and wider[at] != "*"
        }
    return len(wider) in _past_stars(wider, reach)


def _past_stars(pattern: str, reach: set[int]) -> set[int]:
    return reach | {at + 1 for at in reach if pattern[at : at + 1] == "*"}


def arn_covers(wider: str, narrower: str) -> bool:
    """Whether every ARN that fits the pattern `narrower` fits `wider`, both read as by `arn_matches`."""
    wide, narrow = wider.split(":", 5), narrower.split(":", 5)
    return len(wide) == 6 == len(narrow) and all(map(glob_covers, wide, narrow))
