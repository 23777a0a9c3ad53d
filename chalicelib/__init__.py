"""The guard: a pure core, the AWS adapters, the loop, and its faces, importing one way only."""
