"""Spans that a rule forbids, and a link that copies traces: alarmed, and never changed (P13)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chalicelib.domain.reasons import Outcome
from tests.component.guarded import (
    GUARD_ACCOUNT,
    aliased_key,
    guarded,
    policy_members,
    records_of,
    repackaged,
    setting_of,
)
from tests.component.test_sandbox_spans import TRACES, search_on, sink_for

HERE = f"{GUARD_ACCOUNT}/us-east-1"


def test_p13_spans_that_are_forbidden_and_a_link_are_alarmed_and_nothing_is_touched(tmp_path: Path) -> None:
    def forbid(document: Any) -> None:
        document["rules"][0]["require"] |= {"spans": "forbid", "copies_to": []}

    package = repackaged(tmp_path, policy_members(tmp_path, forbid))
    with guarded(package) as account:
        account.client("xray").put_encryption_config(Type="NONE")
        assert account.idle(30)
        oam, sink = account.client("oam"), sink_for(account, TRACES, source=GUARD_ACCOUNT)
        search_on(account)
        link = oam.create_link(LabelTemplate="x", ResourceTypes=[TRACES], SinkIdentifier=sink)["Arn"]
        assert account.idle(30)
        account.run_schedule("sweep")
        assert account.idle(30)
        observed = {
            violation
            for record in records_of(account, HERE)
            if record.outcome is Outcome.OBSERVED
            for violation in record.violations
        }
        assert observed >= {"SPANS_FORBIDDEN", "TRACES_COPIED"}
        assert account.spans()["Destination"] == "CloudWatchLogs"
        assert account.spans()["key"] is None
        assert oam.get_link(Identifier=link)["ResourceTypes"] == [TRACES]
        assert setting_of(account)["KeyId"] == aliased_key(account)
