"""Deploy the packaged templates: their tables, topics, queues, roles, rules and functions, through the AWS API.

A resource is created when another one first refers to it. `WITHOUT_EFFECT` names the types that have no effect here.
Any other unknown type fails the deployment, so that nothing that ships is silently absent.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto.utilities.utils import get_partition

from sandbox.functions import Definition
from sandbox.template import Made, Template, TemplateError

WITHOUT_EFFECT = {
    "AWS::ApiGateway::Account",
    "AWS::CloudWatch::Alarm",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Permission",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::Serverless::Api",
}
"""Types that only other resources read, that control access, which the sandbox does not enforce, or that monitor."""


@dataclass
class Stack:
    """The deployment of one template of the package.

    `client` returns the account administrator's boto3 client for a service.
    """

    package: Path
    account: str
    region: str
    client: Callable[[str], Any]
    folder: Path
    say: Callable[[str], None]
    file: str = "sam.json"
    name: str = "xray-guard"
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.functions: list[Definition] = []
        self._made: dict[str, Made] = {}
        self._making: list[str] = []
        document = json.loads((self.package / self.file).read_text())
        partition = get_partition(self.region)
        suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
        pseudo = {
            "AWS::AccountId": self.account,
            "AWS::Partition": partition,
            "AWS::Region": self.region,
            "AWS::StackName": self.name,
            "AWS::StackId": f"arn:{partition}:cloudformation:{self.region}:{self.account}:stack/{self.name}/sandbox",
            "AWS::URLSuffix": suffix,
        }
        self.template = Template(document, pseudo, self._make_once, self.parameters)

    def deploy(self) -> list[Definition]:
        """Create all resources, unzip the package, and return the functions to run."""
        for logical_id in self.template.resources:
            self._make_once(logical_id)
        for logical_id, resource in self.template.resources.items():
            if resource["Type"] == "AWS::Serverless::Function":
                self._connect(logical_id, resource)
        return self.functions

    def _make_once(self, logical_id: str) -> Made:
        if logical_id in self._made:
            return self._made[logical_id]
        if logical_id in self._making:
            raise TemplateError(f"resources refer to each other in a circle: {' > '.join(self._making)}")
        resource = self.template.resources.get(logical_id) or self._role_of_function(logical_id)
        if resource is None:
            raise TemplateError(f"there is no resource {logical_id}")
        self._making.append(logical_id)
        try:
            self._made[logical_id] = self._make(logical_id, resource["Type"], resource.get("Properties", {}))
        finally:
            self._making.pop()
        return self._made[logical_id]

    def _role_of_function(self, logical_id: str) -> dict[str, Any] | None:
        """Return the role that SAM creates for a function without a role."""
        function = self.template.resources.get(logical_id.removesuffix("Role"))
        if not logical_id.endswith("Role") or function is None:
            return None
        policies = function["Properties"].get("Policies", [])
        listed = policies if isinstance(policies, list) else [policies]
        return {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": "lambda.amazonaws.com"},
                            "Action": "sts:AssumeRole",
                        }
                    ],
                },
                "Policies": [
                    {"PolicyName": f"policy{number}", "PolicyDocument": each}
                    for number, each in enumerate(listed)
                    if isinstance(each, dict) and "Statement" in each
                ],
            },
        }

    def _make(self, logical_id: str, kind: str, properties: dict[str, Any]) -> Made:
        maker = _MAKERS.get(kind)
        if maker is not None:
            return maker(self, logical_id, self.template.resolve(properties))
        if kind in WITHOUT_EFFECT:
            return Made(self._name(logical_id), {"Arn": self._arn("unknown", logical_id)})
        raise TemplateError(f"{logical_id} is of a kind that the sandbox cannot make: {kind}")

    def _name(self, logical_id: str) -> str:
        return f"{self.name}-{logical_id}"

    def _arn(self, service: str, resource: str, *, regional: bool = True) -> str:
        return f"arn:{get_partition(self.region)}:{service}:{self.region if regional else ''}:{self.account}:{resource}"

    def _table(self, logical_id: str, properties: dict[str, Any]) -> Made:
        name = properties.get("TableName") or self._name(logical_id)
        wanted = {
            key: properties[key]
            for key in (
                "AttributeDefinitions",
                "BillingMode",
                "DeletionProtectionEnabled",
                "GlobalSecondaryIndexes",
                "KeySchema",
                "ProvisionedThroughput",
                "StreamSpecification",
            )
            if key in properties
        }
        dynamodb = self.client("dynamodb")
        table = dynamodb.create_table(TableName=name, **wanted)["TableDescription"]
        recovery = properties.get("PointInTimeRecoverySpecification")
        if recovery:
            dynamodb.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=recovery)
        return Made(name, {"Arn": table["TableArn"], "StreamArn": table.get("LatestStreamArn", "")})

    def _topic(self, logical_id: str, properties: dict[str, Any]) -> Made:
        name = properties.get("TopicName") or self._name(logical_id)
        arn = self.client("sns").create_topic(Name=name)["TopicArn"]
        return Made(arn, {"TopicArn": arn, "TopicName": name})

    def _queue(self, logical_id: str, properties: dict[str, Any]) -> Made:
        name = properties.get("QueueName") or self._name(logical_id)
        kept = ("MessageRetentionPeriod", "VisibilityTimeout", "RedrivePolicy", "SqsManagedSseEnabled")
        attributes = {key: _text(properties[key]) for key in kept if key in properties}
        url = self.client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return Made(url, {"Arn": self._arn("sqs", name), "QueueName": name, "QueueUrl": url})

    def _role(self, logical_id: str, properties: dict[str, Any]) -> Made:
        iam = self.client("iam")
        role = iam.create_role(
            RoleName=properties.get("RoleName") or self._name(logical_id),
            Path=properties.get("Path", "/"),
            AssumeRolePolicyDocument=json.dumps(properties["AssumeRolePolicyDocument"]),
        )["Role"]
        for policy in properties.get("Policies", []):
            iam.put_role_policy(
                RoleName=role["RoleName"],
                PolicyName=policy["PolicyName"],
                PolicyDocument=json.dumps(policy["PolicyDocument"]),
            )
        return Made(role["RoleName"], {"Arn": role["Arn"], "RoleId": role["RoleId"]})

    def _role_policy(self, logical_id: str, properties: dict[str, Any]) -> Made:
        for role in properties.get("Roles", []):
            self.client("iam").put_role_policy(
                RoleName=role,
                PolicyName=properties.get("PolicyName") or self._name(logical_id),
                PolicyDocument=json.dumps(properties["PolicyDocument"]),
            )
        return Made(properties.get("PolicyName") or self._name(logical_id))

    def _managed_policy(self, logical_id: str, properties: dict[str, Any]) -> Made:
        name = properties.get("ManagedPolicyName") or self._name(logical_id)
        document = json.dumps(properties["PolicyDocument"])
        arn = self.client("iam").create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"]
        for role in properties.get("Roles", []):
            self.client("iam").attach_role_policy(RoleName=role, PolicyArn=arn)
        return Made(arn, {"PolicyArn": arn})

    def _log_group(self, logical_id: str, properties: dict[str, Any]) -> Made:
        name = properties.get("LogGroupName") or self._name(logical_id)
        logs = self.client("logs")
        logs.create_log_group(logGroupName=name)
        if properties.get("RetentionInDays"):
            logs.put_retention_policy(logGroupName=name, retentionInDays=int(properties["RetentionInDays"]))
        return Made(name, {"Arn": self._arn("logs", f"log-group:{name}:*")})

    def _key(self, _: str, properties: dict[str, Any]) -> Made:
        kms = self.client("kms")
        key = kms.create_key(
            Description=properties.get("Description", ""),
            Policy=json.dumps(properties["KeyPolicy"]),
            Tags=[{"TagKey": each["Key"], "TagValue": each["Value"]} for each in properties.get("Tags", [])],
        )["KeyMetadata"]
        if properties.get("EnableKeyRotation"):
            kms.enable_key_rotation(KeyId=key["KeyId"])
        return Made(key["KeyId"], {"Arn": key["Arn"], "KeyId": key["KeyId"]})

    def _bucket(self, logical_id: str, properties: dict[str, Any]) -> Made:
        name = properties.get("BucketName") or self._name(logical_id).lower()
        where = {} if self.region == "us-east-1" else {"LocationConstraint": self.region}
        self.client("s3").create_bucket(
            Bucket=name,
            ObjectLockEnabledForBucket=bool(properties.get("ObjectLockEnabled")),
            **({"CreateBucketConfiguration": where} if where else {}),
        )
        return Made(name, {"Arn": f"arn:{get_partition(self.region)}:s3:::{name}"})

    def _bus(self, logical_id: str, properties: dict[str, Any]) -> Made:
        name = properties["Name"]
        events = self.client("events")
        arn = events.create_event_bus(Name=name)["EventBusArn"]
        if "Policy" in properties:
            events.put_permission(EventBusName=name, Policy=json.dumps(properties["Policy"]))
        return Made(name, {"Arn": arn, "Name": name})

    def _rule(self, logical_id: str, properties: dict[str, Any]) -> Made:
        name = properties.get("Name") or self._name(logical_id)
        return Made(name, {"Arn": self._put_rule(name, properties, properties.get("Targets", []))})

    def _put_rule(self, name: str, properties: dict[str, Any], targets: list[dict[str, Any]]) -> str:
        """Create a rule with its targets, and return its ARN."""
        events = self.client("events")
        pattern = properties.get("EventPattern")
        schedule = properties.get("ScheduleExpression")
        bus = {"EventBusName": properties["EventBusName"]} if "EventBusName" in properties else {}
        arn: str = events.put_rule(
            Name=name,
            **bus,
            State=properties.get("State", "ENABLED"),
            **({"EventPattern": json.dumps(pattern)} if pattern else {}),
            **({"ScheduleExpression": schedule} if schedule else {}),
        )["RuleArn"]
        if targets:
            events.put_targets(Rule=name, Targets=targets, **bus)
        return arn

    def _function(self, logical_id: str, properties: dict[str, Any]) -> Made:
        shared = self.template.resolve(self.template.document.get("Globals", {}).get("Function", {}))
        environment = {
            **shared.get("Environment", {}).get("Variables", {}),
            **properties.get("Environment", {}).get("Variables", {}),
        }
        properties = {**shared, **properties}
        handler = properties["Handler"]
        short_name = handler.rsplit(".", 1)[-1]
        name = properties.get("FunctionName") or short_name
        role_arn = properties.get("Role") or self._make_once(f"{logical_id}Role").attributes["Arn"]
        after = self._invoke_config(logical_id, properties)
        destinations = after.get("DestinationConfig") or {}
        archive = self._archive(properties.get("CodeUri"))
        definition = Definition(
            name=name,
            short_name=short_name,
            arn=self._arn("lambda", f"function:{name}"),
            handler=handler,
            root=self._unzipped(archive),
            role_arn=role_arn,
            account=self.account,
            region=self.region,
            timeout_seconds=float(properties.get("Timeout", 3)),
            memory_mb=int(properties.get("MemorySize", 128)),
            environment={key: _text(value) for key, value in environment.items()},
            retries=int(after.get("MaximumRetryAttempts", 2)),
            on_failure=(destinations.get("OnFailure") or {}).get("Destination"),
            on_success=(destinations.get("OnSuccess") or {}).get("Destination"),
            dead_letters=(properties.get("DeadLetterQueue") or {}).get("TargetArn"),
        )
        self.functions.append(definition)
        self.client("lambda").create_function(
            FunctionName=name,
            Runtime=properties.get("Runtime", "python3.11"),
            Handler=handler,
            Role=role_arn,
            Timeout=int(definition.timeout_seconds),
            MemorySize=definition.memory_mb,
            Environment={"Variables": definition.environment},
            # Not the zip itself: moto would keep a copy for every function.
            Code={"ZipFile": b"the package is run from disk"},
        )
        return Made(name, {"Arn": definition.arn})

    def _invoke_config(self, logical_id: str, properties: dict[str, Any]) -> dict[str, Any]:
        if properties.get("EventInvokeConfig"):
            config: dict[str, Any] = properties["EventInvokeConfig"]
            return config
        for resource in self.template.resources.values():
            if resource["Type"] == "AWS::Lambda::EventInvokeConfig":
                named = resource["Properties"].get("FunctionName")
                if named in ({"Ref": logical_id}, logical_id, properties.get("FunctionName")):
                    # Without the function's name, which refers to the function that is being created.
                    properties = {key: value for key, value in resource["Properties"].items() if key != "FunctionName"}
                    found: dict[str, Any] = self.template.resolve(properties)
                    return found
        return {}

    def _archive(self, code_uri: Any) -> Path:
        candidates = [self.package / code_uri, Path(code_uri)] if isinstance(code_uri, str) else []
        for candidate in [*candidates, self.package / "deployment.zip"]:
            if candidate.is_file():
                return candidate
        raise TemplateError(f"the package's zip is neither at {code_uri} nor in {self.package}")

    def _unzipped(self, archive: Path) -> Path:
        root = self.folder / "task" / archive.stem
        if not root.exists():
            root.mkdir(parents=True)
            with zipfile.ZipFile(archive) as members:
                members.extractall(root)
        return root

    def _connect(self, logical_id: str, resource: dict[str, Any]) -> None:
        """Create the rules and schedules of a function's `Events`."""
        arn = self._made[logical_id].attributes["Arn"]
        for event_id, event in resource["Properties"].get("Events", {}).items():
            properties = self.template.resolve(event.get("Properties", {}))
            name = properties.get("RuleName") or properties.get("Name") or self._name(f"{logical_id}{event_id}")
            target: dict[str, Any] = {"Id": f"{logical_id}{event_id}"[:64], "Arn": arn}
            for key in ("Input", "InputPath", "RetryPolicy"):
                if properties.get(key):
                    target[key] = properties[key]
            dead_letters = (properties.get("DeadLetterConfig") or {}).get("Arn")
            if dead_letters:
                target["DeadLetterConfig"] = {"Arn": dead_letters}
            state = properties.get("State") or ("ENABLED" if properties.get("Enabled", True) else "DISABLED")
            if event["Type"] in ("CloudWatchEvent", "EventBridgeRule"):
                bus = {"EventBusName": properties["EventBusName"]} if "EventBusName" in properties else {}
                self._put_rule(name, {"EventPattern": properties["Pattern"], "State": state, **bus}, [target])
            elif event["Type"] == "Schedule":
                self._put_rule(name, {"ScheduleExpression": properties["Schedule"], "State": state}, [target])
            else:
                self.say(f"{logical_id}: events of type {event['Type']} are not served here")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value)


_MAKERS: dict[str, Callable[[Stack, str, dict[str, Any]], Made]] = {
    "AWS::DynamoDB::Table": Stack._table,
    "AWS::Events::EventBus": Stack._bus,
    "AWS::Events::Rule": Stack._rule,
    "AWS::IAM::ManagedPolicy": Stack._managed_policy,
    "AWS::IAM::Policy": Stack._role_policy,
    "AWS::IAM::Role": Stack._role,
    "AWS::KMS::Key": Stack._key,
    "AWS::Logs::LogGroup": Stack._log_group,
    "AWS::S3::Bucket": Stack._bucket,
    "AWS::SNS::Topic": Stack._topic,
    "AWS::SQS::Queue": Stack._queue,
    "AWS::Serverless::Function": Stack._function,
}
