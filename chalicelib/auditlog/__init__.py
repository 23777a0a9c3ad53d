"""The audit log: how it is written, sealed, verified and read."""
