"""Questions to an IAM that is simulated by a tool of its own process: may this principal do this, by these policies?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
TOOL = PROJECT / "node_modules" / "@cloud-copilot" / "iam-simulate"
SCRIPT = Path(__file__).with_name("simulate.mjs")

ACCOUNT = "111122223333"
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

Policy = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """May `principal` (an IAM ARN) do `action` on `resource`, which belongs to `account`?

    `identity` is what is attached to the principal, `resource_policy` what is attached to the resource, `scps` what the
    organization attaches to the principal's account beside AWS's own FullAWSAccess.
    """

    principal: str
    action: str
    resource: str
    context: dict[str, str | list[str]] = field(default_factory=dict)
    identity: Sequence[Policy] = (EVERYTHING,)
    resource_policy: Policy | None = None
    scps: Sequence[Policy] = ()
    account: str = ACCOUNT

    def as_json(self) -> dict[str, Any]:
        """The question in the tool's words."""
        caller = self.principal.split(":")[4]
        organization = [{"name": f"scp-{number}", "policy": scp} for number, scp in enumerate((EVERYTHING, *self.scps))]
        as_json: dict[str, Any] = {
            "request": {
                "principal": self.principal,
                "action": self.action,
                "resource": {"resource": self.resource, "accountId": self.account},
                "contextVariables": {
                    "aws:PrincipalArn": self.principal,
                    "aws:PrincipalAccount": caller,
                    **({"kms:CallerAccount": caller} if ":key/" in self.resource else {}),
                    **self.context,
                },
            },
            "identityPolicies": [{"name": f"attached-{n}", "policy": each} for n, each in enumerate(self.identity)],
            "serviceControlPolicies": [{"orgIdentifier": "r-root", "policies": organization}],
            "resourceControlPolicies": [],
        }
        if self.resource_policy is not None:
            as_json["resourcePolicy"] = self.resource_policy
        return as_json


def missing() -> str | None:
    """What must be installed before anything can be simulated; None when all is there."""
    if shutil.which("node") is None:
        return "Node.js is missing: install it (Debian: nodejs and npm), then run npm ci"
    if not TOOL.is_dir():
        return "the IAM simulator is missing: run npm ci in the project's folder"
    return None


def ask(questions: Iterable[Question]) -> list[str]:
    """`Allowed`, `ExplicitlyDenied` or `ImplicitlyDenied` for each question, in order.

    Raises AssertionError where the simulator could not answer, or ignored a part of a question: an answer
    that rests on half of the question proves nothing.
    """
    requests = [question.as_json() for question in questions]
    ran = subprocess.run(
        ["node", str(SCRIPT)],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "NODE_NO_WARNINGS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout)
    assert len(answers) == len(requests)
    for question, answer in zip(requests, answers, strict=True):
        assert "error" not in answer, (question["request"], answer)
        assert not answer["ignored"], (question["request"], answer)
    return [answer["result"] for answer in answers]
