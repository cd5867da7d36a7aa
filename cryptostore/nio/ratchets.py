"""Which of two Megolm sessions with one id is kept. nio keeps the last one, and so loses messages."""

from __future__ import annotations

from nio.crypto import InboundGroupSession

from .provenance import is_from_backup, note_origin


def better_of(known: InboundGroupSession, offered: InboundGroupSession) -> tuple[InboundGroupSession, bool]:
    """The session to keep, and whether it differs from `known` as it was.

    Of one ratchet, the lower first known index wins, since it reads more messages, and the origin stays for which fewer
    had to be trusted: the shorter forwarding chain, and any before a backup. A ratchet only goes forward, so one that
    reaches the state of the other is the same, whoever brought it. Of two ratchets under one id, only one that came
    from its creator directly replaces one that did not, and any other one from a backup: any device can claim an id,
    and anybody can write into a backup.
    """
    reads_more = offered.first_known_index < known.first_known_index
    trusts_less = _distrust(offered) < _distrust(known)
    if not _same_ratchet(known, offered):
        replaces = trusts_less and (not offered.forwarding_chain or is_from_backup(known))
        return (offered, True) if replaces else (known, False)
    winner, origin = (offered if reads_more else known), (offered if trusts_less else known)
    winner.ed25519, winner.forwarding_chain = origin.ed25519, list(origin.forwarding_chain)
    note_origin(winner, from_backup=is_from_backup(origin))
    return winner, reads_more or trusts_less


def _distrust(session: InboundGroupSession) -> tuple[bool, int]:
    """Grows with how many had to be trusted. Anybody may have written a backup, also without any chain."""
    return is_from_backup(session), len(session.forwarding_chain)


def _same_ratchet(one: InboundGroupSession, other: InboundGroupSession) -> bool:
    index = max(one.first_known_index, other.first_known_index)
    return one.export_session(index) == other.export_session(index)
