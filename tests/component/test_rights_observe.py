"""P13: a guard that was deployed with a role that only reads."""

from __future__ import annotations

from chalicelib.domain.reasons import Outcome
from tests.component.guarded import guarded, keys_behind_the_guard, records_of, setting_of

ACCOUNT = "123456789012"
HERE = f"{ACCOUNT}/us-east-1"


def test_p13_deployed_with_a_role_that_only_reads_the_guard_records_what_happened_and_changes_nothing() -> None:
    with guarded(account=ACCOUNT, parameters={"Rights": "observe"}) as account:
        account.client("xray").put_encryption_config(Type="NONE")
        assert account.idle(20)
        account.run_schedule("sweep")
        assert account.idle(20)
        (record,) = records_of(account, HERE)
        assert (record.outcome, record.reason) == (Outcome.OBSERVED, "RIGHTS_OBSERVE")
        assert setting_of(account)["Type"] == "NONE"
        assert keys_behind_the_guard(account) == []
