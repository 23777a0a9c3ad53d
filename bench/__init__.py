"""Measure what the guard costs: the shipped package against a bare boto3 handler that makes the same AWS calls."""
