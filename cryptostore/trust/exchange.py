"""One verification as a state machine: what came makes it go on, and says what to send. It sends nothing itself.

    request -> ready -> start -> accept -> key and key -> (people compare) -> mac and mac -> done and done

Either side may ask, and either may send `start`. Matrix specification, sections "Key verification framework" and
"Short Authentication String (SAS) verification".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from . import exchange_contents as contents
from .exchange_contents import REASONS, Chosen, Code, Flow
from .sas import DeviceId, EphemeralKey, Macs, ShortAuth, Side, commitment, public_key, sas_info

#: Seconds from the request until a verification has to be done.
LIFE: Final = 600.0
#: Seconds that a request waits for a person to take it.
PROMPT: Final = 120.0


class Phase(Enum):
    """How far a verification is."""

    #: Somebody asked.
    REQUESTED = auto()
    #: Both sides are there.
    READY = auto()
    #: One side has sent `start`, or both have.
    STARTED = auto()
    #: How to compare is agreed on; the keys are under way.
    ACCEPTED = auto()
    #: People compare.
    COMPARING = auto()
    #: Both sides said that it matches, and the other's keys are those that it has MACs of.
    VERIFIED = auto()
    #: This side has sent `done`.
    DONE = auto()
    CANCELLED = auto()


ENDED: Final = frozenset({Phase.DONE, Phase.CANCELLED})


class Message(NamedTuple):
    """An event to send."""

    event_type: str
    content: dict[str, Any]


class Cancellation(NamedTuple):
    """Why a verification has ended without a result. Code and reason are the other side's words, if it was not us."""

    code: str
    reason: str
    by_us: bool


class WrongPhase(Exception):
    """What was asked for cannot be done now."""


class _Refused(Exception):
    """What came ends the verification."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.code = code


class Exchange:
    """One verification with one user.

    `keys` are the keys of this side that the other shall verify, by their ids: the device's, and the master key if it
    is ours. The device of `other` may be empty if we asked, and asked all of the user's devices. Times are seconds of
    one clock: `asked_at` by whoever asked, and `now` of here.
    """

    def __init__(
        self,
        flow: Flow,
        own: DeviceId,
        keys: Mapping[str, str],
        other: DeviceId,
        *,
        we_asked: bool,
        asked_at: float,
        now: float,
    ) -> None:
        self.flow: Final = flow
        self.own: Final = own
        self.we_asked: Final = we_asked
        #: The other side.
        self.other = other
        self.phase = Phase.REQUESTED
        self.cancellation: Cancellation | None = None
        #: What to compare, as soon as it is known.
        self.short_auth: ShortAuth | None = None
        #: The ids of those keys that the other side has shown to have, by MACs that are right.
        self.verified: frozenset[str] = frozenset()
        self._keys = dict(keys)
        self._expires_at = min(asked_at, now) + LIFE
        self._prompt_ends_at = now + PROMPT
        self._their_keys: dict[str, str] = {}
        self._came: dict[str, Mapping[str, Any]] = {}
        self._we_started = False
        self._start: Mapping[str, Any] = {}
        self._chosen: Chosen | None = None
        self._commitment = ""
        self._ephemeral = EphemeralKey()
        self._macs: Macs | None = None
        self._is_confirmed = False
        self._handlers = {
            contents.READY: self._on_ready,
            contents.START: self._on_start,
            contents.ACCEPT: self._on_accept,
            contents.KEY: self._on_key,
            contents.MACS: self._on_macs,
            contents.DONE: self._on_done,
            contents.CANCEL: self._on_cancel,
        }

    @property
    def has_ended(self) -> bool:
        """Whether nothing is sent any more, and nothing that comes matters."""
        return self.phase in ENDED

    @property
    def expires_at(self) -> float:
        """When `expire` ends it."""
        waits_for_us = self.phase is Phase.REQUESTED and not self.we_asked
        return min(self._expires_at, self._prompt_ends_at) if waits_for_us else self._expires_at

    def know(self, keys: Mapping[str, str]) -> None:
        """These are the other side's keys by their ids, as its homeserver shows them: its device's, its master key."""
        self._their_keys = dict(keys)

    def came_with_start(self, start: Mapping[str, Any]) -> None:
        """The other side began with `start`, without a request, as older clients do."""
        self._start = start

    def take(self) -> list[Message]:
        """Take the other side's request. Raises WrongPhase."""
        if self.phase is not Phase.REQUESTED or self.we_asked:
            raise WrongPhase("there is no request to accept")
        if self._start:
            return self._guarded(self._accept_start, self._start)
        self.phase = Phase.READY
        return [self._message(contents.READY, contents.ready(self.own.device_id))]

    def start(self) -> list[Message]:
        """Begin to compare. Raises WrongPhase."""
        if self.phase is not Phase.READY:
            raise WrongPhase("the other side is not ready, or has begun already")
        message = self._message(contents.START, contents.start(self.own.device_id))
        self._we_started, self._start = True, message.content
        self.phase = Phase.STARTED
        return [message]

    def confirm(self) -> list[Message]:
        """The short strings match: say so. Raises WrongPhase."""
        if self.phase is not Phase.COMPARING or self._macs is None or self._is_confirmed:
            raise WrongPhase("there is nothing to confirm")
        self._is_confirmed = True
        self._settle()
        macs, mac_of_ids = self._macs.own(self._keys)
        return [self._message(contents.MACS, {"mac": macs, "keys": mac_of_ids})]

    def finish(self) -> list[Message]:
        """What follows is done and kept: say so. Raises WrongPhase."""
        if self.phase is not Phase.VERIFIED:
            raise WrongPhase("nothing is verified")
        self.phase = Phase.DONE
        return [self._message(contents.DONE, {})]

    def cancel(self, code: Code = Code.USER) -> list[Message]:
        """End it; nothing if it has ended."""
        if self.has_ended:
            return []
        reason = REASONS[code]
        self._end(code, reason, by_us=True)
        return [self._message(contents.CANCEL, contents.cancel(code, reason))]

    def taken_by_another(self) -> None:
        """Another device of this user took the request. Nothing is sent."""
        if not self.has_ended:
            self._end(Code.ACCEPTED, REASONS[Code.ACCEPTED], by_us=True)

    def expire(self, now: float) -> list[Message]:
        """End it if it took too long."""
        return self.cancel(Code.TIMEOUT) if now >= self.expires_at else []

    def receive(self, event_type: str, content: Mapping[str, Any]) -> list[Message]:
        """An event of the other side. What does not belong here, or is malformed, ends the verification."""
        if self.has_ended or self._came.get(event_type) == content:
            # Homeservers may bring a message twice.
            return []
        return self._guarded(self._receive, event_type, content)

    def _guarded(self, receive: Callable[..., list[Message]], *what: Any) -> list[Message]:
        try:
            return receive(*what)
        except _Refused as refused:
            return self.cancel(refused.code)
        except contents.UnknownMethod:
            return self.cancel(Code.UNKNOWN_METHOD)
        except ValueError:
            return self.cancel(Code.INVALID_MESSAGE)

    def _receive(self, event_type: str, content: Mapping[str, Any]) -> list[Message]:
        handle = self._handlers.get(event_type)
        if handle is None:
            return []
        messages = handle(content)
        self._came[event_type] = content
        return messages

    def _on_ready(self, content: Mapping[str, Any]) -> list[Message]:
        if not self.we_asked:
            raise _Refused(Code.UNEXPECTED_MESSAGE)
        device_id = contents.text(content, "from_device")
        if self.phase is not Phase.REQUESTED or self.other.device_id not in ("", device_id):
            # In a room several devices may take the request; the first one counts.
            return []
        if not contents.has_method(content):
            raise contents.UnknownMethod("no common method")
        self.other = self.other._replace(device_id=device_id)
        self.phase = Phase.READY
        return []

    def _on_start(self, content: Mapping[str, Any]) -> list[Message]:
        if contents.text(content, "from_device") != self.other.device_id:
            raise _Refused(Code.UNEXPECTED_MESSAGE)
        if self.phase is Phase.READY:
            return self._accept_start(content)
        if self.phase is not Phase.STARTED or not self._we_started:
            raise _Refused(Code.UNEXPECTED_MESSAGE)
        return self._on_both_started(content)

    def _on_both_started(self, content: Mapping[str, Any]) -> list[Message]:
        if contents.text(content, "method") != contents.METHOD:
            raise _Refused(Code.UNEXPECTED_MESSAGE)
        if self.own < self.other:
            return []
        self._we_started = False
        return self._accept_start(content)

    def _accept_start(self, content: Mapping[str, Any]) -> list[Message]:
        self._chosen = contents.chosen_from_start(content)
        self._start = content
        accepted = contents.accept(self._chosen, commitment(self._ephemeral.public, content))
        self.phase = Phase.ACCEPTED
        return [self._message(contents.ACCEPT, accepted)]

    def _on_accept(self, content: Mapping[str, Any]) -> list[Message]:
        if self.phase is not Phase.STARTED:
            raise _Refused(Code.UNEXPECTED_MESSAGE)
        self._chosen = contents.chosen_from_accept(content)
        self._commitment = contents.text(content, "commitment").rstrip("=")
        self.phase = Phase.ACCEPTED
        return [self._own_key()]

    def _on_key(self, content: Mapping[str, Any]) -> list[Message]:
        if self.phase is not Phase.ACCEPTED or self._chosen is None:
            raise _Refused(Code.UNEXPECTED_MESSAGE)
        key = public_key(contents.text(content, "key"))
        if self._we_started and commitment(key, self._start) != self._commitment:
            raise _Refused(Code.MISMATCHED_COMMITMENT)
        secret = self._ephemeral.agree(key)
        ours, theirs = Side(self.own, self._ephemeral.public), Side(self.other, key)
        sides = (ours, theirs) if self._we_started else (theirs, ours)
        info = sas_info(*sides, self.flow.transaction_id)
        self.short_auth = secret.short_auth(info, self._chosen.short_auth)
        self._macs = Macs(secret, self._chosen.mac, self.own, self.other, self.flow.transaction_id)
        self.phase = Phase.COMPARING
        return [] if self._we_started else [self._own_key()]

    def _on_macs(self, content: Mapping[str, Any]) -> list[Message]:
        if self.phase is not Phase.COMPARING or self._macs is None or self.verified:
            raise _Refused(Code.UNEXPECTED_MESSAGE)
        macs, mac_of_ids = contents.macs(content), contents.text(content, "keys")
        self.verified = self._macs.verified(macs, mac_of_ids, self._their_keys)
        if not self.verified:
            raise _Refused(Code.KEY_MISMATCH)
        self._settle()
        return []

    def _on_done(self, _content: Mapping[str, Any]) -> list[Message]:
        # It can have ours only after we have sent it.
        if self.phase is not Phase.VERIFIED:
            raise _Refused(Code.UNEXPECTED_MESSAGE)
        return []

    def _on_cancel(self, content: Mapping[str, Any]) -> list[Message]:
        self._end(contents.said(content, "code"), contents.said(content, "reason"), by_us=False)
        return []

    def _own_key(self) -> Message:
        return self._message(contents.KEY, {"key": self._ephemeral.public})

    def _settle(self) -> None:
        if self._is_confirmed and self.verified:
            self.phase = Phase.VERIFIED

    def _end(self, code: str, reason: str, *, by_us: bool) -> None:
        self.cancellation = Cancellation(code, reason, by_us)
        self.phase = Phase.CANCELLED

    def _message(self, event_type: str, content: Mapping[str, Any]) -> Message:
        return Message(event_type, self.flow.of(content))
