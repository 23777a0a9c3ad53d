"""The managed key's policy: what it must say, whether it says it, and how to add what is missing without losing a word.

Policies are judged by meaning. Doubt counts against the key: an Allow that may be narrower than required counts as
missing (adding ours is harmless), and a Deny that could affect X-Ray's use leaves the key unproved. Merging copies the
text of every statement that KMS returned and appends to them; it never rewrites one.
"""
