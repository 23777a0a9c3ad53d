"""The policy document as values: which rule governs a target, and what that rule requires.

Only a stamped document is loaded. `policy_check.stamp` writes the stamp after it validated the document, so this module
does not validate again: it checks that the bytes are the stamped ones, and otherwise raises. There is no built-in
fallback policy (P12).
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
"""The `trace_readers` that lets every principal of the account decrypt through X-Ray."""


class PolicyError(Exception):
    """There is no valid policy, so the guard does nothing. `code` is stable; the text says what, where, what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Mode(StrEnum):
    """What a rule does about a drift: remediate it, only record it, or ignore it."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    OFF = "off"


class When(StrEnum):
    """Whether a sweep judges a target that never used encryption and has no traces."""

    ALWAYS = "always"
    IN_USE = "in-use"


class KeyKind(StrEnum):
    """`customer`: a customer managed key. `any-kms`: X-Ray's AWS managed key is enough, too."""

    CUSTOMER = "customer"
    ANY_KMS = "any-kms"


class SpansRule(StrEnum):
    """What a rule requires of spans that CloudWatch Logs stores: nothing, an allowed key, or that there are none."""

    REPORT = "report"
    ENCRYPT = "encrypt"
    FORBID = "forbid"


class Limits(Struct, frozen=True):
    """The most targets that one sweep may mutate, and the longest pause between two attempts, in minutes."""

    remediations_per_sweep: int = 50
    max_backoff_minutes: int = 5


class Require(Struct, frozen=True):
    """What the setting's key must be.

    `allowed_keys` are aliases (`alias/…`, resolved in the target), key ARNs and ARN globs. It is empty only under
    `any-kms`, where it then restricts nothing; the AWS managed key needs no entry there.
    `copies_to` are globs of the accounts to which links may copy traces; None allows every account.
    """

    key: KeyKind = KeyKind.CUSTOMER
    allowed_keys: tuple[str, ...] = ()
    same_account: bool = True
    rotation: bool = True
    spans: SpansRule = SpansRule.REPORT
    copies_to: tuple[str, ...] | None = None


class ManagedKey(Struct, frozen=True):
    """The key that the guard creates or adopts. `trace_readers` is `account`, or ARN globs of roles and users."""

    alias: str = "alias/xray-encryption"
    description: str = "X-Ray trace encryption"
    rotation_days: int = 365
    tags: Mapping[str, str] = field(default_factory=dict)
    trace_readers: Literal["account"] | tuple[str, ...] = EVERY_READER
    ensure: bool = False

    def __hash__(self) -> int:
        return hash(self.alias)  # not the tags, because a mapping has no hash; equality compares all fields


class BreakGlass(Struct, frozen=True):
    """The tag that suspends remediation for `max_hours` at most; only `principals` may set it."""

    tag: str
    max_hours: int
    principals: tuple[str, ...]


class Rule(Struct, frozen=True):
    """What is required of the targets that `accounts` and `regions` (globs) match.

    Only a rule that is `off` may omit `require` and `managed_key`; their defaults are not used then. Without
    `break_glass` nothing suppresses the rule.
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

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases that the rule names, the managed key's first."""
        allowed = (name for name in self.require.allowed_keys if name.startswith("alias/"))
        return tuple(dict.fromkeys((self.managed_key.alias, *allowed)))


class Policy(Struct, frozen=True):
    """The whole document. `digest` is the SHA-256 of its bytes, in hexadecimal: the name of this very version.

    `document` is its text, so that the guard can put on the record what it enforced.
    """

    limits: Limits
    rules: tuple[Rule, ...]
    digest: str
    document: str = ""

    def rule_for(self, target: Target) -> Rule | None:
        """Return the first rule that matches; None if the target is ungoverned."""
        return next((rule for rule in self.rules if rule.governs(target)), None)


class Stamp(Struct, frozen=True):
    """The content of `policy.stamp.json`: digests of the document and of the schema it was validated against."""

    sha256: str
    schema_sha256: str


class _Document(Struct, frozen=True):
    version: Literal[1]
    rules: tuple[Rule, ...]
    limits: Limits = Limits()


def load_stamped(folder: Path) -> Policy:
    """Return the policy in force: the folder's `policy.json`, if its `policy.stamp.json` has the digest of these bytes.

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
            f"{document_path} is not the document that was validated: its SHA-256 is {digest}, the stamp has "
            f"{stamp.sha256[:64]}; package again with the policy that you want",
        )
    try:
        return parse(document)
    except (ValueError, RecursionError) as error:
        raise PolicyError(
            Reason.POLICY_UNREADABLE,
            f"{document_path} was stamped but this code cannot read it ({error}); package document and code together",
        ) from error


def parse(document: bytes) -> Policy:
    """Read a validated document. Raises ValueError (msgspec's) if its shape is wrong."""
    read = msgspec.json.decode(document, type=_Document)
    return Policy(read.limits, read.rules, sha256_of(document), document.decode())


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of the bytes, in lower-case hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _read(path: Path, code: str, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise PolicyError(code, f"{path} does not exist; {remedy}") from error
    except OSError as error:
        raise PolicyError(Reason.POLICY_UNREADABLE, f"{path} cannot be read ({error.strerror}); {remedy}") from error


def glob_matches(pattern: str, text: str) -> bool:
    """Whether the whole text matches a pattern of literal characters, `*` (any run) and `?` (any one). Case-sensitive.

    Backtracks only to the latest star, so the time is at most the product of the two lengths.
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
    """Whether an ARN matches a pattern as in IAM's ArnLike: each of the six colon-separated parts by itself.

    So a star does not match a colon, except within the last part. A text without six parts never matches.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    """
    wanted, parts = pattern.split(":", 5), arn.split(":", 5)
    return len(wanted) == 6 == len(parts) and all(map(glob_matches, wanted, parts))


def glob_covers(wider: str, narrower: str) -> bool:
    """Whether everything that matches `narrower` matches `wider`. True is certain; False may be too cautious."""
    literal = wider.rstrip("*")
    if "*" not in literal and "?" not in literal:
        # Nearly all patterns are literal, or literal up to a final star, and this function is called very often.
        return narrower == wider if literal == wider else narrower.startswith(literal)
    while "**" in wider:
        # Several stars mean the same as one; otherwise a key policy could keep this loop busy for hours.
        wider = wider.replace("**", "*")
    reach = {0}  # the possible positions in `wider` after the symbols of `narrower` read so far
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
    """Whether every ARN that matches `narrower` matches `wider`, in the sense of `arn_matches`."""
    wide, narrow = wider.split(":", 5), narrower.split(":", 5)
    return len(wide) == 6 == len(narrow) and all(map(glob_covers, wide, narrow))
