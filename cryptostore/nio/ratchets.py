"""Which of two Megolm sessions with one id is kept. nio keeps the last one, and so loses messages."""

from __future__ import annotations

from nio.crypto import InboundGroupSession


def better_of(known: InboundGroupSession, offered: InboundGroupSession) -> tuple[InboundGroupSession, bool]:
    """The session to keep, and whether it differs from `known` as it was.

    Of one ratchet, the lower first known index wins, since it reads more messages, and the shorter forwarding chain
    stays, since fewer had to be trusted. Of two ratchets under one id, only one that came from its creator directly
    replaces one that was forwarded: any device can claim an id.
    """
    if not _same_ratchet(known, offered):
        replaces = bool(known.forwarding_chain) and not offered.forwarding_chain
        return (offered, True) if replaces else (known, False)
    reads_more = offered.first_known_index < known.first_known_index
    trusts_less = len(offered.forwarding_chain) < len(known.forwarding_chain)
    winner, origin = (offered if reads_more else known), (offered if trusts_less else known)
    winner.ed25519, winner.forwarding_chain = origin.ed25519, list(origin.forwarding_chain)
    return winner, reads_more or trusts_less


def _same_ratchet(one: InboundGroupSession, other: InboundGroupSession) -> bool:
    index = max(one.first_known_index, other.first_known_index)
    return one.export_session(index) == other.export_session(index)
