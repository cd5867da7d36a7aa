"""The formats and the cryptography of trust: cross-signing, secret storage, verification and key backup.

Nothing here knows a client, a homeserver or a database.
"""
