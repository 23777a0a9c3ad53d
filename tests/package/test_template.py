"""What the template deploys: each setting has its effect, nothing is lost, and what goes wrong raises an alarm."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint
from cfnlint.config import ManualArgs

from chalicelib.aws.kms import METHODS
from chalicelib.domain.events import KEY_EVENTS, KEY_NOTICES
from chalicelib.domain.policy import parse
from sandbox.template import Made, Template
from tests.package.conftest import of_type

FUNCTIONS = {
    "on_change": "OnChange",
    "on_key_change": "OnKeyChange",
    "tick": "Tick",
    "sweep": "Sweep",
    "event_history": "EventHistory",
}
"""The guard's own. The API's is tested in test_api_template.py."""

ON_PUT_ENCRYPTION_CONFIG = {
    "source": ["aws.xray"],
    "detail-type": ["AWS API Call via CloudTrail"],
    "detail": {"eventSource": ["xray.amazonaws.com"], "eventName": ["PutEncryptionConfig"]},
}


def properties(template: dict[str, Any], name: str) -> Any:
    return template["Resources"][name]["Properties"]


def functions(template: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in template["Resources"].items() if one["Type"] == "AWS::Serverless::Function"}


def guards(template: dict[str, Any]) -> dict[str, Any]:
    """The functions that run as the guard."""
    return {name: one for name, one in functions(template).items() if name in FUNCTIONS.values()}


@pytest.fixture(scope="session")
def config(project: Path) -> dict[str, Any]:
    """Chalice's configuration."""
    read: dict[str, Any] = json.loads((project / ".chalice" / "config.json").read_text("utf-8"))
    return read


@pytest.fixture(scope="session")
def statements(sam: dict[str, Any]) -> list[dict[str, Any]]:
    """The statements of the guard's role, optional ones included."""
    (policy,) = properties(sam, "GuardRole")["Policies"]
    return [one.get("Fn::If", [None, one])[1] for one in policy["PolicyDocument"]["Statement"]]


def test_the_template_has_just_the_functions_that_are_tested_here(sam: dict[str, Any]) -> None:
    handlers = {name: one["Properties"]["Handler"] for name, one in functions(sam).items()}
    assert handlers == {**{logical: f"app.{name}" for name, logical in FUNCTIONS.items()}, "APIHandler": "app.app"}


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "us-gov-west-1", "cn-north-1"])
@pytest.mark.parametrize("form", ["sam", "expanded", "tables", "spoke_region"])
def test_the_template_lints_clean_as_written_and_as_expanded(
    form: str, region: str, request: pytest.FixtureRequest
) -> None:
    text = json.dumps(request.getfixturevalue(form), indent=1)
    assert lint(text, config=ManualArgs(regions=[region])) == []


def test_the_linter_would_notice_a_misspelt_action(expanded: dict[str, Any]) -> None:
    text = json.dumps(expanded, indent=1)
    misspelt = text.replace("kms:GetKeyRotationStatus", "kms:GetKeyRotationState")
    assert misspelt != text
    assert [match.rule.id for match in lint(misspelt, config=ManualArgs(regions=["us-east-1"]))] == ["W3037"]


class TestConfig:
    """Chalice ignores unknown keys and function names in its configuration, so each is looked for in the template."""

    def test_every_key_is_one_whose_effect_is_tested_here(self, config: dict[str, Any]) -> None:
        for_all = {"lambda_memory_size", "lambda_timeout", "environment_variables", "log_retention_in_days"}
        whole = {
            "version",
            "app_name",
            "api_gateway_stage",
            "api_gateway_endpoint_type",
            "autogen_policy",
            "manage_iam_role",
            "iam_role_arn",
            "lambda_functions",
            "stages",
        }
        assert set(config) <= for_all | whole
        for stage in config["stages"].values():
            assert set(stage) <= for_all | {"lambda_functions"}
            assert set(stage.get("lambda_functions", {})) <= set(FUNCTIONS)
        for name, settings in config["lambda_functions"].items():
            assert name in {*FUNCTIONS, "api_handler"}
            assert set(settings) <= for_all

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_every_setting_has_its_effect(self, name: str, config: dict[str, Any], sam: dict[str, Any]) -> None:
        stage = config["stages"]["dev"]
        wanted = {**config, **stage, **config["lambda_functions"].get(name, {})}
        function = properties(sam, FUNCTIONS[name])
        assert function["Timeout"] == wanted["lambda_timeout"]
        assert function["MemorySize"] == wanted["lambda_memory_size"]
        variables = {**config["environment_variables"], **stage["environment_variables"]}
        assert variables.items() <= function["Environment"]["Variables"].items()
        assert f"app={config['app_name']}" in function["Tags"]["aws-chalice"]
        logs = properties(sam, f"{FUNCTIONS[name]}LogGroup")
        assert logs["RetentionInDays"] == stage["log_retention_in_days"]
        assert logs["LogGroupName"] == {"Fn::Sub": f"/aws/lambda/${{{FUNCTIONS[name]}}}"}

    def test_chalice_makes_no_role_of_its_own(self, sam: dict[str, Any]) -> None:
        roles = sorted(name for name, one in sam["Resources"].items() if one["Type"] == "AWS::IAM::Role")
        assert roles == ["ApiRole", "ForwardRole", "GuardRole"]
        for function in guards(sam).values():
            assert function["Properties"]["Role"] == {"Fn::GetAtt": ["GuardRole", "Arn"]}

    def test_the_functions_live_as_long_as_their_work_may_take(self, sam: dict[str, Any]) -> None:
        timeouts = {name: properties(sam, logical)["Timeout"] for name, logical in FUNCTIONS.items()}
        assert timeouts == {"on_change": 60, "on_key_change": 60, "tick": 60, "sweep": 300, "event_history": 300}

    def test_the_functions_are_told_which_role_is_the_guards_own(self, sam: dict[str, Any]) -> None:
        for function in guards(sam).values():
            variables = function["Properties"]["Environment"]["Variables"]
            assert variables["XRAY_GUARD_ROLE_ARN"] == {"Fn::GetAtt": ["GuardRole", "Arn"]}
            assert variables["XRAY_GUARD_ANCHOR_BUCKET"] == {"Fn::If": ["HasAnchorBucket", {"Ref": "AnchorBucket"}, ""]}
            assert variables["XRAY_GUARD_RIGHTS"] == {"Ref": "Rights"}


class TestTriggers:
    def test_a_change_of_the_setting_is_heard_of(self, expanded: dict[str, Any]) -> None:
        rule = properties(expanded, "OnChangeOnChangeEvent")
        assert rule["EventPattern"] == ON_PUT_ENCRYPTION_CONFIG
        assert rule["Targets"][0]["Arn"] == {"Fn::GetAtt": ["OnChange", "Arn"]}

    @pytest.mark.parametrize(
        ("rule", "rate"),
        [
            ("TickTickEvent", "rate(1 minute)"),
            ("SweepSweepEvent", "rate(1 hour)"),
            ("EventHistoryEventHistoryEvent", "rate(1 hour)"),
        ],
    )
    def test_the_schedules_run_by_the_clock(self, rule: str, rate: str, expanded: dict[str, Any]) -> None:
        assert properties(expanded, rule)["ScheduleExpression"] == rate

    def test_key_changes_wake_a_function_only_when_they_may_matter(self, expanded: dict[str, Any]) -> None:
        pattern = properties(expanded, "OnKeyChangeOnKeyChangeEvent")["EventPattern"]
        of_source = {source: each["detail"] for each in pattern["$or"] for source in each["source"]}
        assert set(of_source) == {"aws.kms", "aws.logs", "aws.oam", "aws.xray"}
        names = of_source["aws.kms"]["eventName"]
        assert {name for name in names if isinstance(name, str)} == KEY_EVENTS
        assert set(pattern["detail-type"]) >= KEY_NOTICES
        assert {"CreateGrant", "RevokeGrant", "RetireGrant"} < KEY_EVENTS
        assert {"exists": False} in names  # KMS's own notices carry none
        assert all(detail["errorCode"] == [{"exists": False}] for detail in of_source.values())

    def test_what_a_rule_cannot_deliver_goes_to_the_dead_letters(self, expanded: dict[str, Any]) -> None:
        rules = [one for one in expanded["Resources"].values() if one["Type"] == "AWS::Events::Rule"]
        assert len(rules) == len(FUNCTIONS) + 2  # two functions receive forwarded events, too
        for rule in rules:
            assert rule["Properties"]["Name"].startswith("xray-guard-")  # the queue's policy knows the rules by it
            for target in rule["Properties"]["Targets"]:
                assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["DeadLetters", "Arn"]}}
                assert target["RetryPolicy"]["MaximumEventAgeInSeconds"] >= 60

    def test_what_a_function_cannot_handle_goes_to_the_dead_letters(self, expanded: dict[str, Any]) -> None:
        for logical in FUNCTIONS.values():
            invoke = properties(expanded, f"{logical}EventInvokeConfig")
            assert invoke["DestinationConfig"]["OnFailure"]["Destination"] == {"Fn::GetAtt": ["DeadLetters", "Arn"]}

    def test_services_invoke_the_functions_as_themselves_whom_no_organization_policy_binds(
        self, expanded: dict[str, Any]
    ) -> None:
        """policies/scp-guard.json denies invoking to the account's principals, a role of a trigger included."""
        permissions = of_type(expanded, "AWS::Lambda::Permission").values()
        services = {one["Properties"]["Principal"] for one in permissions}
        assert services == {"apigateway.amazonaws.com", "events.amazonaws.com"}
        for rule in of_type(expanded, "AWS::Events::Rule").values():
            assert all("RoleArn" not in target for target in rule["Properties"]["Targets"])
        assert '"credentials"' not in json.dumps(of_type(expanded, "AWS::ApiGateway::RestApi"))

    def test_a_change_is_tried_as_often_and_as_long_as_lambda_allows(self, expanded: dict[str, Any]) -> None:
        invoke = properties(expanded, "OnChangeEventInvokeConfig")
        assert (invoke["MaximumRetryAttempts"], invoke["MaximumEventAgeInSeconds"]) == (2, 21600)
        retry = properties(expanded, "OnChangeOnChangeEvent")["Targets"][0]["RetryPolicy"]
        assert (retry["MaximumRetryAttempts"], retry["MaximumEventAgeInSeconds"]) == (185, 86400)

    def test_dead_letters_are_encrypted_kept_two_weeks_and_written_by_the_guards_rules_only(
        self, sam: dict[str, Any]
    ) -> None:
        queue = properties(sam, "DeadLetters")
        assert queue["SqsManagedSseEnabled"] is True
        assert queue["MessageRetentionPeriod"] == 14 * 24 * 60 * 60
        allowed = [
            one
            for one in properties(sam, "DeadLettersPolicy")["PolicyDocument"]["Statement"]
            if one["Effect"] == "Allow"
        ]
        assert [one["Principal"] for one in allowed] == [{"Service": "events.amazonaws.com"}]
        sources = [one["Fn::Sub"].partition("rule/")[2] for one in allowed[0]["Condition"]["ArnLike"]["aws:SourceArn"]]
        assert sources == ["xray-guard-*", "xray-guard/xray-guard-*"]  # on the default bus, and on the guard's


@pytest.mark.parametrize("name", ["AuditTable", "TargetsTable"])
def test_tables_survive_the_stack_and_can_be_brought_back(name: str, tables: dict[str, Any]) -> None:
    resource = tables["Resources"][name]
    assert resource["DeletionPolicy"] == resource["UpdateReplacePolicy"] == "Retain"
    table = resource["Properties"]
    assert table["DeletionProtectionEnabled"] is True
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"] == {"SSEEnabled": True}
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert "TimeToLiveSpecification" not in table  # P15: nothing is ever dropped by the clock


def test_nothing_but_the_tables_is_in_their_stack_so_that_nothing_else_can_fail_it(tables: dict[str, Any]) -> None:
    assert {name: one["Type"] for name, one in tables["Resources"].items()} == dict.fromkeys(
        ("AuditTable", "TargetsTable"), "AWS::DynamoDB::Table"
    )
    assert set(tables) == {"AWSTemplateFormatVersion", "Description", "Parameters", "Conditions", "Resources"}


def test_a_table_that_exists_can_be_imported(tables: dict[str, Any]) -> None:
    """CloudFormation asks for a name without functions, and for Retain; an import may bring no outputs."""
    assert "Outputs" not in tables
    for resource in tables["Resources"].values():
        plain = {name: value for name, value in resource["Properties"].items() if name != "ResourcePolicy"}
        assert "Fn::" not in json.dumps(plain)
        assert '"Ref"' not in json.dumps(plain)
        assert isinstance(resource["Properties"]["TableName"], str)
        assert resource["DeletionPolicy"] == "Retain"


def test_p16_the_tables_have_a_policy_only_where_the_deployment_names_who_may_write(tables: dict[str, Any]) -> None:
    """A policy without the deploying role would shut CloudFormation out of the policy itself."""
    assert {name: one["Default"] for name, one in tables["Parameters"].items()} == {
        "PipelineRole": "none",
        "OperatorRoles": "none",
    }
    assert tables["Conditions"]["HasPolicy"] == {
        "Fn::Or": [{"Condition": "HasPipelineRole"}, {"Condition": "HasOperatorRoles"}]
    }
    for name in ("AuditTable", "TargetsTable"):
        condition, chosen, otherwise = properties(tables, name)["ResourcePolicy"]["Fn::If"]
        assert (condition, otherwise) == ("HasPolicy", {"Ref": "AWS::NoValue"})
        for statement in chosen["PolicyDocument"]["Statement"]:
            assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
            never_denied = ("UpdateTable", "DeleteTable", "Backup", "Restore", "TimeToLive", "*")
            assert not [action for action in statement["Action"] if any(word in action for word in never_denied)]
            assert statement["Resource"]["Fn::Sub"].endswith(f":table/{properties(tables, name)['TableName']}")


def test_the_guards_stack_can_fail_or_go_without_a_table(sam: dict[str, Any], expanded: dict[str, Any]) -> None:
    for template in (sam, expanded):
        kinds = {one["Type"] for one in template["Resources"].values()}
        assert not [kind for kind in kinds if kind.startswith("AWS::DynamoDB")]
        assert "Fn::ImportValue" not in json.dumps(template)


def test_the_command_line_finds_the_tables_by_their_default_names(sam: dict[str, Any], tables: dict[str, Any]) -> None:
    names = [properties(tables, name)["TableName"] for name in ("AuditTable", "TargetsTable")]
    assert names == ["xray-guard-audit", "xray-guard-targets"]
    for function in functions(sam).values():
        variables = function["Properties"]["Environment"]["Variables"]
        assert [variables["XRAY_GUARD_AUDIT_TABLE"], variables["XRAY_GUARD_TARGETS_TABLE"]] == names


def test_tables_have_the_keys_and_indexes_that_the_store_uses(tables: dict[str, Any]) -> None:
    def keys(schema: Any) -> list[str]:
        return [one["AttributeName"] for one in schema]

    shapes = {}
    for name in ("AuditTable", "TargetsTable"):
        table = properties(tables, name)
        (index,) = table["GlobalSecondaryIndexes"]
        shapes[name] = (
            keys(table["KeySchema"]),
            index["IndexName"],
            keys(index["KeySchema"]),
            index["Projection"]["ProjectionType"],
        )
    assert shapes == {
        "AuditTable": (["target", "sk"], "by_time", ["month_shard", "at_key"], "ALL"),
        "TargetsTable": (["target"], "by_due", ["due_shard", "due_at"], "KEYS_ONLY"),
    }


class TestAlarms:
    def test_all_alarms_tell_one_encrypted_topic(self, sam: dict[str, Any]) -> None:
        alarms = [one["Properties"] for one in sam["Resources"].values() if one["Type"] == "AWS::CloudWatch::Alarm"]
        assert sorted(alarm["AlarmName"] for alarm in alarms) == [
            "xray-guard-dead-letters",
            "xray-guard-deaf",
            "xray-guard-errors-api",
            "xray-guard-errors-event_history",
            "xray-guard-errors-on_change",
            "xray-guard-errors-on_key_change",
            "xray-guard-errors-sweep",
            "xray-guard-errors-tick",
            "xray-guard-failed",
            "xray-guard-flapping",
            "xray-guard-key-policy-open",
            "xray-guard-no-event-history",
            "xray-guard-no-sweep",
            "xray-guard-paused",
            "xray-guard-region-denied",
            "xray-guard-role-borrowed",
            "xray-guard-spans-forbidden",
            "xray-guard-state-edited",
            "xray-guard-traces-copied",
            "xray-guard-unconfirmed",
        ]
        assert all(alarm["AlarmActions"] == [{"Ref": "Alarms"}] for alarm in alarms)
        assert properties(sam, "Alarms")["KmsMasterKeyId"] == {"Ref": "AlarmKey"}

    def test_cloudwatch_may_use_the_topics_key_which_the_aws_managed_one_would_refuse(
        self, sam: dict[str, Any]
    ) -> None:
        statements = properties(sam, "AlarmKey")["KeyPolicy"]["Statement"]
        (granted,) = [one for one in statements if one["Principal"] == {"Service": "cloudwatch.amazonaws.com"}]
        assert granted["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]

    def test_the_guards_own_metrics_are_those_that_the_functions_write(self, sam: dict[str, Any]) -> None:
        for name, metric in (
            ("DeafAlarm", "Deaf"),
            ("FailedAlarm", "Failed"),
            ("FlappingAlarm", "Flapping"),
            ("KeyPolicyOpenAlarm", "KeyPolicyOpen"),
            ("PausedAlarm", "Paused"),
            ("RegionDeniedAlarm", "RegionDenied"),
            ("RoleBorrowedAlarm", "RoleBorrowed"),
            ("StateEditedAlarm", "StateEdited"),
            ("SpansForbiddenAlarm", "SpansForbidden"),
            ("SweepAlarm", "SweepCompleted"),
            ("TracesCopiedAlarm", "TracesCopied"),
            ("HistoryAlarm", "EventHistoryRead"),
            ("UnconfirmedAlarm", "Unconfirmed"),
        ):
            alarm = properties(sam, name)
            assert alarm["MetricName"] == metric
            for function in functions(sam).values():
                variables = function["Properties"]["Environment"]["Variables"]
                assert alarm["Namespace"] == variables["POWERTOOLS_METRICS_NAMESPACE"]
                assert alarm["Dimensions"] == [{"Name": "service", "Value": variables["POWERTOOLS_SERVICE_NAME"]}]

    def test_no_alarm_rests_on_metric_math_which_may_stay_silent_over_a_metric_never_emitted(
        self, sam: dict[str, Any]
    ) -> None:
        for name, alarm in of_type(sam, "AWS::CloudWatch::Alarm").items():
            assert "Metrics" not in alarm["Properties"], name
            assert alarm["Properties"]["MetricName"], name

    def test_one_error_of_any_function_rings_the_alarm_that_names_the_function(self, sam: dict[str, Any]) -> None:
        watched = {}
        for alarm in of_type(sam, "AWS::CloudWatch::Alarm").values():
            if (alarm["Properties"]["Namespace"], alarm["Properties"]["MetricName"]) == ("AWS/Lambda", "Errors"):
                (dimension,) = alarm["Properties"]["Dimensions"]
                assert dimension["Name"] == "FunctionName"
                assert (alarm["Properties"]["Statistic"], alarm["Properties"]["Threshold"]) == ("Sum", 1)
                assert alarm["Properties"]["TreatMissingData"] == "notBreaching"
                watched[dimension["Value"]["Ref"]] = alarm["Properties"]["AlarmName"]
        names = {name: one["Properties"]["FunctionName"] for name, one in functions(sam).items()}
        assert watched == {
            name: function.replace("xray-guard-", "xray-guard-errors-") for name, function in names.items()
        }

    def test_the_page_on_deploying_says_what_each_alarm_means(self, sam: dict[str, Any], project: Path) -> None:
        page = (project / "docs" / "deploy.md").read_text("utf-8")
        _, _, rest = page.partition("## When an alarm is active")
        explained = set(re.findall(r"`([^`]+)`", rest.partition("##")[0]))
        for alarm in of_type(sam, "AWS::CloudWatch::Alarm").values():
            name = alarm["Properties"]["AlarmName"]
            assert name in explained or name.replace("xray-guard-errors", "…") in explained, name

    def test_deafness_is_an_alarm_from_one_hourly_run_to_the_next(self, sam: dict[str, Any]) -> None:
        alarm = properties(sam, "DeafAlarm")
        assert alarm["TreatMissingData"] == "notBreaching"
        assert (alarm["Period"], alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]) == (3600, 2, 1)

    def test_silence_of_the_sweep_is_an_alarm(self, sam: dict[str, Any]) -> None:
        alarm = properties(sam, "SweepAlarm")
        assert alarm["TreatMissingData"] == "breaching"
        assert alarm["Period"] * alarm["DatapointsToAlarm"] == 2 * 60 * 60


class TestRights:
    """The rights of the guard's role: P13 and P16 rest on what it cannot do."""

    NO_ARN: frozenset[str] = frozenset(
        {
            "cloudtrail:LookupEvents",
            "ec2:DescribeRegions",
            "kms:ListKeys",
            "logs:DescribeLogGroups",
            "oam:ListLinks",
            "xray:GetEncryptionConfig",
            "xray:GetServiceGraph",
            "xray:GetTraceSegmentDestination",
            "xray:PutEncryptionConfig",
        }
    )

    @staticmethod
    def actions(statement: dict[str, Any]) -> set[str]:
        named = statement["Action"]
        return {named} if isinstance(named, str) else set(named)

    def test_only_what_has_no_arn_or_is_narrowed_by_a_condition_is_allowed_everywhere(
        self, statements: list[dict[str, Any]]
    ) -> None:
        everywhere = [one for one in statements if one["Effect"] == "Allow" and one["Resource"] == "*"]
        unconditional = {action for one in everywhere if "Condition" not in one for action in self.actions(one)}
        assert unconditional == self.NO_ARN
        assert [one["Sid"] for one in everywhere if "Condition" in one] == ["MakeKeysTaggedAsOwn"]

    def test_no_action_is_a_wildcard(self, statements: list[dict[str, Any]]) -> None:
        assert not [action for one in statements for action in self.actions(one) if "*" in action]

    def test_keys_are_changed_only_where_tagged_as_the_guards_own(self, statements: list[dict[str, Any]]) -> None:
        changing = {"kms:CancelKeyDeletion", "kms:EnableKey", "kms:EnableKeyRotation", "kms:PutKeyPolicy"}
        tagged = [
            {"StringEquals": {"aws:ResourceTag/xray-guard": "managed"}},
            {"StringEquals": {"aws:RequestTag/xray-guard": "managed"}},
        ]
        for statement in statements:
            if statement["Effect"] == "Allow" and self.actions(statement) & changing:
                equals = {"StringEquals": statement["Condition"]["StringEquals"]}
                assert equals in tagged, statement["Sid"]

    @pytest.mark.parametrize(
        "action", ["kms:DisableKey", "kms:ScheduleKeyDeletion", "kms:DeleteAlias", "kms:DisableKeyRotation"]
    )
    def test_no_key_can_be_taken_away_whatever_else_is_attached_to_the_role(
        self, action: str, statements: list[dict[str, Any]]
    ) -> None:
        denied = [one for one in statements if one["Effect"] == "Deny" and action in self.actions(one)]
        assert [(one["Resource"], one.get("Condition")) for one in denied] == [("*", None)]
        assert not [one for one in statements if one["Effect"] == "Allow" and action in self.actions(one)]

    def test_the_guard_cannot_open_break_glass(self, statements: list[dict[str, Any]], project: Path) -> None:
        policy = parse((project / "policies" / "policy.json").read_bytes())
        tags = sorted({rule.break_glass.tag for rule in policy.rules if rule.break_glass})
        (denied,) = [one for one in statements if one["Sid"] == "NeverOpenBreakGlass"]
        assert denied["Condition"] == {"ForAnyValue:StringEquals": {"aws:TagKeys": tags}}

    def test_the_only_aliases_it_may_set_are_those_of_the_rules(
        self, statements: list[dict[str, Any]], project: Path
    ) -> None:
        policy = parse((project / "policies" / "policy.json").read_bytes())
        aliases = sorted({rule.managed_key.alias for rule in policy.rules if rule.managed_key})
        (allowed,) = [one for one in statements if one["Sid"] == "OnlyTheAliasesOfTheRules"]
        named = [one["Fn::Sub"] for one in allowed["Resource"]]
        assert named == ["arn:${AWS::Partition}:kms:*:${AWS::AccountId}:" + alias for alias in aliases]

    def test_the_audit_log_can_only_be_added_to(self, statements: list[dict[str, Any]]) -> None:
        on_audit = [one for one in statements if "xray-guard-audit" in json.dumps(one["Resource"])]
        allowed = {action for one in on_audit if one["Effect"] == "Allow" for action in self.actions(one)}
        denied = {action for one in on_audit if one["Effect"] == "Deny" for action in self.actions(one)}
        assert allowed == {
            "dynamodb:BatchGetItem",
            "dynamodb:ConditionCheckItem",
            "dynamodb:PutItem",
            "dynamodb:Query",
        }
        assert {"dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:DeleteTable"} <= denied

    def test_the_rights_are_those_of_the_calls_that_the_adapters_make(
        self, statements: list[dict[str, Any]], project: Path
    ) -> None:
        text = "".join(path.read_text("utf-8") for path in (project / "chalicelib/aws").glob("*.py"))
        called = set(re.findall(r'"((?:cloudtrail|dynamodb|ec2|iam|logs|oam|s3|sqs|xray):[A-Z]\w+)"', text))
        called |= {f"kms:{operation}" for operation in METHODS}
        called.remove("iam:ListUserTags")  # policy.json names no user
        called.remove("dynamodb:TransactWriteItems")  # is authorized as the actions of its parts
        on_behalf = {
            "kms:CreateGrant",  # X-Ray, with the caller's rights, when it is given a key
            "kms:TagResource",  # KMS, for the tags that CreateKey brings
            "dynamodb:PutItem",  # DynamoDB, for a transaction's Put
            "dynamodb:UpdateItem",  # and for its Update
            "dynamodb:ConditionCheckItem",  # and for its ConditionCheck
            "logs:CreateLogStream",  # Lambda
            "logs:PutLogEvents",
            "sqs:SendMessage",  # Lambda, for what it gives up on
        }
        # What only the command line asks for, with its own rights.
        for_people = {
            "dynamodb:GetItem",
            "dynamodb:Scan",
            "s3:GetObjectVersion",
            "s3:ListBucketVersions",
        }
        allowed = {action for one in statements if one["Effect"] == "Allow" for action in self.actions(one)}
        assert allowed == (called - for_people) | on_behalf

    def test_grants_are_made_for_xray_only(self, statements: list[dict[str, Any]]) -> None:
        (granting,) = [one for one in statements if "kms:CreateGrant" in self.actions(one)]
        assert granting["Condition"] == {
            "StringLike": {"kms:ViaService": "xray.*.amazonaws.com"},
            "Bool": {"kms:GrantIsForAWSResource": "true"},
        }

    def test_the_role_has_a_name_that_organization_policies_can_name(self, sam: dict[str, Any]) -> None:
        assert properties(sam, "GuardRole")["RoleName"] == "xray-guard"

    def test_anchors_may_be_written_only_where_a_bucket_is_given(self, sam: dict[str, Any]) -> None:
        (policy,) = properties(sam, "GuardRole")["Policies"]
        choices = [one["Fn::If"] for one in policy["PolicyDocument"]["Statement"] if "Fn::If" in one]
        (choice,) = [one for one in choices if one[0] == "HasAnchorBucket"]
        assert choice[1]["Action"] == "s3:PutObject"
        assert choice[2] == {"Ref": "AWS::NoValue"}

    def test_p13_every_right_to_change_xray_or_kms_goes_with_the_parameter_rights(self, sam: dict[str, Any]) -> None:
        (policy,) = properties(sam, "GuardRole")["Policies"]
        always = [one for one in policy["PolicyDocument"]["Statement"] if one.get("Effect") == "Allow"]
        of_others = ("kms:", "logs:AssociateKmsKey", "oam:", "xray:")
        named = {action for one in always for action in self.actions(one) if action.startswith(of_others)}
        assert all(action.split(":")[1].startswith(("Describe", "Get", "List")) for action in named)
        choices = [one["Fn::If"] for one in policy["PolicyDocument"]["Statement"] if "Fn::If" in one]
        bound = {one["Sid"] for condition, one, _ in choices if condition == "Enforces"}
        assert {"SetXRay", "MakeKeysTaggedAsOwn", "RepairKeysTaggedAsOwn", "LetXRayUseTheKey", "EncryptSpans"} <= bound
        assert sam["Conditions"]["Enforces"] == {"Fn::Equals": [{"Ref": "Rights"}, "enforce"]}
        rights = sam["Parameters"]["Rights"]
        assert (rights["Default"], rights["AllowedValues"]) == ("enforce", ["enforce", "observe"])

    def test_p16_a_bucket_called_none_is_no_bucket(self, sam: dict[str, Any]) -> None:
        for value, wanted in (("anchors", True), ("none", False), ("", False)):
            template = Template(sam, {}, Made, {"AnchorBucket": value})
            assert template.holds("HasAnchorBucket") is wanted

    def test_the_rights_fit_into_a_role_with_room_for_a_larger_policy(self, sam: dict[str, Any]) -> None:
        most_characters = 10_240  # of all inline policies of a role together, white space not counted
        policies = json.dumps(properties(sam, "GuardRole")["Policies"], separators=(",", ":"))
        assert len(policies) < most_characters * 3 / 4
