"""Links to the AWS console lead to the console of the resource's partition, or are left out."""

from __future__ import annotations

import pytest

from chalicelib.console import links


@pytest.mark.parametrize(
    ("partition", "region", "host"),
    [
        ("aws", "us-east-1", "console.aws.amazon.com"),
        ("aws-us-gov", "us-gov-west-1", "console.amazonaws-us-gov.com"),
        ("aws-cn", "cn-north-1", "console.amazonaws.cn"),
    ],
)
def test_each_partition_has_its_own_console(partition: str, region: str, host: str) -> None:
    target = f"111122223333/{region}"
    key = links.of_key(f"arn:{partition}:kms:{region}:111122223333:key/1234-abcd")
    assert key == f"https://{host}/kms/home?region={region}#/kms/keys/1234-abcd"
    assert links.of_event("e-1", target) == f"https://{host}/cloudtrailv2/home?region={region}#/events/e-1"
    assert links.of_aliases(target) == f"https://{host}/kms/home?region={region}#/kms/keys"


def test_a_partition_whose_console_is_not_known_has_no_links() -> None:
    assert links.of_key("arn:aws-iso:kms:us-iso-east-1:111122223333:key/1") is None
    assert links.of_event("e-1", "111122223333/us-iso-east-1") is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "alias/xray-encryption",
        "arn:aws:iam::111122223333:role/Admin",
        "arn:aws:kms:us-east-1:111122223333:alias/x",
        "arn:aws:kms:cn-north-1:111122223333:key/1",
        "arn:aws:kms:evil.example/?:111122223333:key/1",
        "javascript:alert(1)",
    ],
)
def test_what_is_no_key_has_no_link(text: str | None) -> None:
    assert links.of_key(text) is None


def test_a_hostile_id_stays_inside_its_link() -> None:
    address = links.of_event('"><script>/../', "111122223333/us-east-1")
    assert address is not None
    assert address.endswith("#/events/%22%3E%3Cscript%3E%2F..%2F")
