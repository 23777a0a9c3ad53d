"""IAM's tags of roles and users over boto3. https://docs.aws.amazon.com/IAM/latest/APIReference/welcome.html"""

from __future__ import annotations

from chalicelib.aws.clients import Clients
from chalicelib.aws.paging import pages
from chalicelib.domain.model import Target, arn_part

Tags = tuple[tuple[str, str], ...]


class PrincipalsApi:
    """`ports.Principals`. IAM is global within a partition; the target's Region only selects its endpoint."""

    def __init__(self, clients: Clients, target: Target) -> None:
        self._clients = clients
        self._region = target.region

    def tags(self, principal_arn: str) -> Tags:
        """ListRoleTags or ListUserTags, every page. Raises ValueError for an ARN of anything else."""
        kind, _, name = arn_part(principal_arn, 5).rpartition("/")
        kind = kind.split("/", 1)[0]
        operation, method, parameter = {
            "role": ("iam:ListRoleTags", "list_role_tags", "RoleName"),
            "user": ("iam:ListUserTags", "list_user_tags", "UserName"),
        }.get(kind, ("", "", ""))
        if not operation:
            raise ValueError(f"{principal_arn} is neither a role nor a user, so it has no tags")
        client = self._clients.reading("iam", self._region)
        found: list[tuple[str, str]] = []
        parameters = {parameter: name}
        for response in pages(operation, getattr(client, method), {"Marker": "Marker"}, "IsTruncated", **parameters):
            found += [(tag["Key"], tag["Value"]) for tag in response["Tags"]]
        return tuple(found)
