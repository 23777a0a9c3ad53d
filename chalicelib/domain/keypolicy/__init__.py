"""The managed key's policy: what it must say, whether it says it, and how to add what is missing without losing a word.

Policies are judged by meaning. Where the meaning is in doubt the doubt counts against the key: an Allow that may be
narrower than wanted counts as missing (adding ours is harmless), and a Deny that could hit X-Ray's use leaves the key
unproved. Merging copies every statement that KMS showed as the text it was and appends; it never rewrites one.
"""
