"""The client's parts that deal with trust: identities, secrets, verification and key backup."""
