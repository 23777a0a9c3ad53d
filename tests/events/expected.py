"""What must come of each event of this folder, as data.

`world` is the setting and its key as the call left them (the guard runs in account 111122223333 under the baseline
policy); `outcome` and `violation` are what the audit log must say (None: nothing recorded, an echo of the guard's own
call); `actor` is whom the record must name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from chalicelib.domain.model import Actor, Target
from chalicelib.domain.reasons import Outcome, Violation

FOLDER = Path(__file__).parent

US_EAST_1 = Target("111122223333", "us-east-1")
ALICE = Actor("arn:aws:iam::111122223333:user/Alice", "IAMUser")
PLATFORM_ADMIN = Actor("arn:aws:iam::111122223333:role/PlatformAdmin", "AssumedRole", session="jdoe")
SSO_ROLE = "role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_account-admin_599c9e90e350d2ff"


@dataclass(frozen=True)
class Expected:
    """One row: `world` is none, aws-managed, other-key, foreign-key or compliant."""

    file: str
    world: str
    outcome: Outcome | None
    violation: Violation | None
    actor: Actor
    target: Target = field(default=US_EAST_1)
    error_code: str | None = None

    @property
    def path(self) -> Path:
        """Where the event is."""
        return FOLDER / self.file


EXPECTED = (
    Expected(
        "02_success_kms_alias_aws_managed_iamuser_cli.json",
        "aws-managed",
        Outcome.REMEDIATED,
        Violation.AWS_MANAGED_KEY,
        ALICE,
    ),
    Expected(
        "03_success_kms_alias_customer_assumedrole.json",
        "other-key",
        Outcome.REMEDIATED,
        Violation.KEY_NOT_ALLOWED,
        PLATFORM_ADMIN,
    ),
    Expected(
        "04_success_kms_bare_keyid_assumedrole.json",
        "other-key",
        Outcome.REMEDIATED,
        Violation.KEY_NOT_ALLOWED,
        PLATFORM_ADMIN,
    ),
    Expected(
        "05_success_kms_key_arn_assumedrole.json",
        "other-key",
        Outcome.REMEDIATED,
        Violation.KEY_NOT_ALLOWED,
        PLATFORM_ADMIN,
    ),
    Expected(
        "07_success_kms_cross_account_key_arn.json",
        "foreign-key",
        Outcome.REMEDIATED,
        Violation.KEY_FOREIGN_ACCOUNT,
        PLATFORM_ADMIN,
    ),
    Expected(
        "09_error_accessdenied_iamuser_null_request.json",
        "compliant",
        Outcome.IGNORED,
        None,
        ALICE,
        error_code="AccessDenied",
    ),
    Expected(
        "11_error_invalidrequest.json",
        "compliant",
        Outcome.IGNORED,
        None,
        PLATFORM_ADMIN,
        error_code="InvalidRequestException",
    ),
    Expected(
        "13_success_none_root_console.json",
        "none",
        Outcome.REMEDIATED,
        Violation.NOT_KMS,
        Actor("arn:aws:iam::111122223333:root", "Root"),
    ),
    Expected(
        "16_success_none_sso_role_noregion_path.json",
        "none",
        Outcome.REMEDIATED,
        Violation.NOT_KMS,
        Actor(f"arn:aws:iam::111122223333:{SSO_ROLE}", "AssumedRole", session="jane.doe@example.com"),
    ),
    Expected(
        "17_success_none_federateduser.json",
        "none",
        Outcome.REMEDIATED,
        Violation.NOT_KMS,
        Actor("arn:aws:sts::111122223333:federated-user/stratus_red_team", "FederatedUser", issued_by=ALICE.arn),
    ),
    Expected(
        "19_success_none_awsservice_no_arn.json",
        "none",
        Outcome.REMEDIATED,
        Violation.NOT_KMS,
        Actor("config.amazonaws.com", "AWSService"),
    ),
    Expected(
        "20_success_kms_assumedrole_invokedby_ssm.json",
        "other-key",
        Outcome.REMEDIATED,
        Violation.KEY_NOT_ALLOWED,
        Actor(
            "arn:aws:iam::111122223333:role/SsmAutomationRole",
            "AssumedRole",
            session="Automation-2026",
            via="ssm.amazonaws.com",
        ),
    ),
    Expected(
        "21_success_none_identity_without_type.json",
        "none",
        Outcome.REMEDIATED,
        Violation.NOT_KMS,
        Actor("ec2.amazonaws.com", None),
    ),
    Expected(
        "23_success_none_cross_account_role_session.json",
        "none",
        Outcome.REMEDIATED,
        Violation.NOT_KMS,
        Actor("arn:aws:iam::111122223333:role/break-glass/OrgBreakGlass", "AssumedRole", session="ops-oncall"),
    ),
    Expected(
        "25_success_none_delegated_product_provider.json",
        "none",
        Outcome.REMEDIATED,
        Violation.NOT_KMS,
        Actor("arn:aws:iam::111122223333:role/Alice", "AssumedRole", session="Session", delegate="999999999999"),
    ),
    Expected(
        "26_success_kms_self_remediator_lambda.json",
        "compliant",
        None,
        None,
        Actor("arn:aws:iam::111122223333:role/xray-guard-role", "AssumedRole", session="xray-guard-handler"),
    ),
    Expected(
        "27_success_kms_govcloud.json",
        "other-key",
        Outcome.REMEDIATED,
        Violation.KEY_NOT_ALLOWED,
        Actor(
            "arn:aws-us-gov:iam::111122223333:role/a-andromeda",
            "AssumedRole",
            session="health-check-session",
        ),
        target=Target("111122223333", "us-gov-west-1"),
    ),
    Expected("29_addendum_updated_data.json", "none", Outcome.REMEDIATED, Violation.NOT_KMS, PLATFORM_ADMIN),
    Expected(
        "30_success_none_iamuser_mfa_console_with_path.json",
        "none",
        Outcome.REMEDIATED,
        Violation.NOT_KMS,
        Actor("arn:aws:iam::111122223333:user/division_abc/Bob", "IAMUser"),
    ),
)
