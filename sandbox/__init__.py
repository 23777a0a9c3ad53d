"""A simulated AWS on one machine, for the demo and the tests; it does not ship.

It is moto's server on loopback, with what moto lacks. Start reading at `server.py`. `additions.py` also extends moto's
`mock_aws`, for tests that need no server.
"""
