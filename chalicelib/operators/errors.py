"""Errors for operators: what happened, what to do, and the exit code."""

from __future__ import annotations

import os
from typing import IO, Any

import click
from botocore.exceptions import BotoCoreError

from chalicelib.auditlog.cursors import BadCursor
from chalicelib.aws.tables import AUDIT_TABLE, TARGETS_TABLE
from chalicelib.domain.errors import AwsError, FormatTooNew, GuardError
from chalicelib.domain.policy import PolicyError
from chalicelib.operators.formatting import clean

NO = 1
USAGE = 2
CONFIGURATION = 253
REFUSED = 254

SIGN_IN = "sign in again (`aws sso login` or new temporary credentials) and repeat the command"
GIVE_CREDENTIALS = "name a profile (--profile NAME), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
EXPIRED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "TokenRetrievalError",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
    "InvalidGrantException",
}
NOT_VALID = {
    "AuthFailure",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}
THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}
UNREACHED = {"EndpointConnectionError", "ConnectTimeoutError", "NoAnswer", "ProxyConnectionError", "SSLError"}


class OperatorError(click.ClickException):
    """An error for the operator. `message` says what happened, `remedy` what to do."""

    def __init__(self, message: str, remedy: str | None = None, exit_code: int = REFUSED) -> None:
        super().__init__(message)
        self.remedy = remedy
        self._exit_code = exit_code

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """The exit code of the program."""
        return self._exit_code

    def show(self, file: IO[Any] | None = None) -> None:
        """Print both to stderr, without control characters."""
        click.echo(f"xray-guard: {clean(self.message, keep_lines=True)}", file=file, err=file is None)
        if self.remedy:
            click.echo(f"  What to do: {clean(self.remedy)}", file=file, err=file is None)


class Unreached(OperatorError):
    """No response from AWS: it refused nothing."""


def operator_error(error: Exception) -> OperatorError:
    """Convert any exception."""
    if isinstance(error, AwsError):
        return _refused(error)
    if isinstance(error, BadCursor):
        return OperatorError(str(error), "leave --next-token out to start with the newest record", USAGE)
    if isinstance(error, PolicyError):
        return OperatorError(error.message, None, CONFIGURATION)
    if isinstance(error, FormatTooNew):
        remedy = "use the release of xray-guard that is deployed, or deploy the newer release again"
        return OperatorError(f"{error.problem.code}: {error.problem.message}", remedy, CONFIGURATION)
    if isinstance(error, GuardError):
        return OperatorError(f"{error.problem.code}: {error.problem.message}", "try again in a minute", REFUSED)
    if isinstance(error, BotoCoreError):
        return _misconfigured(type(error).__name__, str(error))
    return OperatorError(
        f"internal error of xray-guard: {type(error).__name__}: {error}",
        "run `xray-guard doctor`, and report this error with the command that you ran",
        REFUSED,
    )


def _misconfigured(code: str, message: str) -> OperatorError:
    if code in NO_CREDENTIALS:
        return OperatorError(f"no usable AWS credentials: {message}", GIVE_CREDENTIALS, CONFIGURATION)
    if code in EXPIRED:
        return OperatorError(f"the AWS credentials have expired: {message}", SIGN_IN, CONFIGURATION)
    if code == "ProfileNotFound":
        return OperatorError(message, "list your profiles with `aws configure list-profiles`", CONFIGURATION)
    if code == "NoRegionError":
        remedy = "name the Region where the guard is deployed: --home-region REGION, or set AWS_REGION"
        return OperatorError("no Region is configured", remedy, CONFIGURATION)
    if code in UNREACHED:
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        remedy = (
            f"check that the endpoint is running: AWS_ENDPOINT_URL is {endpoint}"
            if endpoint
            else "check the network and the Region's name"
        )
        return Unreached(f"cannot reach AWS: {message}", remedy, REFUSED)
    return OperatorError(f"{code}: {message}", "check the AWS configuration: profile, Region, endpoint", CONFIGURATION)


def _refused(error: AwsError) -> OperatorError:
    message = error.problem.message
    if error.code in EXPIRED:
        return OperatorError(f"the AWS credentials have expired ({error.operation})", SIGN_IN, CONFIGURATION)
    if error.code in NOT_VALID:
        remedy = f"check which credentials are in use (`aws sts get-caller-identity`); {GIVE_CREDENTIALS}"
        return OperatorError(f"AWS does not accept these credentials: {message}", remedy, CONFIGURATION)
    if error.code in NO_CREDENTIALS or error.code in UNREACHED:
        return _misconfigured(error.code, message)
    if error.code == "ResourceNotFoundException" and error.operation.startswith("dynamodb:"):
        tables = (
            f"XRAY_GUARD_AUDIT_TABLE ({os.environ.get('XRAY_GUARD_AUDIT_TABLE', AUDIT_TABLE)}) and "
            f"XRAY_GUARD_TARGETS_TABLE ({os.environ.get('XRAY_GUARD_TARGETS_TABLE', TARGETS_TABLE)})"
        )
        return OperatorError(
            "the guard's tables do not exist in this account and Region",
            f"name the Region where the guard is deployed (--home-region), check --profile, or set {tables}",
            CONFIGURATION,
        )
    if error.code in THROTTLED:
        return OperatorError(f"AWS throttled the request: {message}", "wait a minute and repeat the command", REFUSED)
    if error.code in DENIED:
        return OperatorError(f"AWS denied the request: {message}", f"these credentials need {error.operation}", REFUSED)
    return OperatorError(f"AWS returned an error: {error.code}: {message}", None, REFUSED)
