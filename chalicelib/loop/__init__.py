"""Observe, decide, act, record: the loop, and the runs over many targets."""
