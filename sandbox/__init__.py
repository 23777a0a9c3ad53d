"""An AWS on one machine, for the demo and the tests; never shipped.

moto's server on loopback, with what it lacks added. Start reading at `server.py`; `additions.py` is what also serves
moto's `mock_aws`, in tests that need no server.
"""
