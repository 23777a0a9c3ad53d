"""AWS behind the interfaces of the loop: boto3 and nothing that decides."""
