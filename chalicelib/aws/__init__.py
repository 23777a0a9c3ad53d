"""The loop's interfaces to AWS, implemented with boto3. Nothing is decided here."""
