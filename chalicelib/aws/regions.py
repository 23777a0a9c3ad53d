"""The Regions of an account. https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeRegions.html"""

from __future__ import annotations

from chalicelib.aws.clients import Clients, call


def enabled_regions(clients: Clients, region: str) -> list[str]:
    """Return the Regions that the account has enabled (ec2:DescribeRegions without AllRegions)."""
    answer = call("ec2:DescribeRegions", clients.reading("ec2", region).describe_regions)
    return sorted(entry["RegionName"] for entry in answer["Regions"])
