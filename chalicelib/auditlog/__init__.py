"""The audit log: its format, its writing, its verification and its queries."""
