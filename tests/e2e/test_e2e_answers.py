"""A homeserver that fails: it refuses, answers garbage, does its part and says that it did not, and hangs up."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable

import pytest

from homeserver_bed import Bed, Talk, met
from homeserver_client import Client, ClientFailed
from homeserver_proxy import Answer, HomeserverProxy, PassOn

pytestmark = pytest.mark.e2e

_UNUSABLE = [
    Answer.of({"errcode": "M_UNKNOWN", "error": "Internal server error"}, status=500),
    Answer(502, b"<html>Bad gateway</html>"),
    Answer.of(
        {"errcode": "M_UNKNOWN", "error": "One time key signed_curve25519:AAAAAAAAAAE already exists"}, status=400
    ),
    Answer(200, b"\xff no JSON"),
    Answer.of([1]),
]
#: Answers that could be meant for something else. A request to sendToDevice has none that is too little.
_STRANGE = [Answer.of({"one_time_keys": 5, "one_time_key_counts": []})]

#: Each answer in place of the homeserver's, and after it did its part.
UNUSABLE = list(itertools.product(_UNUSABLE, (False, True)))
STRANGE = list(itertools.product(_STRANGE, (False, True)))


def test_whatever_becomes_of_an_upload_no_one_time_key_is_offered_twice(any_bed: Bed, proxy: HomeserverProxy) -> None:
    talk, alice, bob = met(any_bed)
    bob.kill()
    bob = any_bed.start(talk.bob, homeserver=proxy.url)
    claim = _claims(talk)
    for _ in range(20):
        claim()
    with (
        proxy.answering("/keys/upload", UNUSABLE[0][0], passed_on=False),
        pytest.raises(ClientFailed, match="KeysUploadError"),
    ):
        bob.call("sync")
    for answer, passed_on in UNUSABLE + STRANGE:
        with proxy.answering("/keys/upload", answer, passed_on):
            assert bob.call("upload").startswith("KeysUploadError"), answer
    seemingly_refused = set(_offered(proxy))
    # A device that takes one of these keys, and the homeserver gives the oldest first, is read.
    while claim() not in seemingly_refused:
        continue
    _meets_a_stranger(talk, bob)

    # The homeserver says that it has a key already, and means it.
    last = max(int.from_bytes(base64.b64decode(name.partition(":")[2] + "=")) for name in _offered(proxy))
    taken = {_key_id(last + number): {"key": "a", "signatures": {}} for number in range(1, 6)}
    any_bed.api.upload_one_time_keys(_access_token(proxy), taken)
    while claim() not in taken:
        continue
    bob.call("sync")
    assert "already exists" in bob.call("upload")
    assert taken.keys() < set(_offered(proxy))
    assert bob.call("upload").startswith("KeysUploadResponse")
    offered = _offered(proxy)
    assert len(offered) == len(set(offered))
    while claim() in taken:
        continue
    _meets_a_stranger(talk, bob)
    talk.both_directions_work(alice, bob)


def _claims(talk: Talk) -> Callable[[], str | None]:
    """Take Bob's one-time keys one by one, as a stranger would."""
    stranger = talk.bed.api.register("stranger")
    return lambda: talk.bed.api.claim_one_time_key(stranger, talk.bob.user, talk.bob.config.device_id)


def _offered(proxy: HomeserverProxy) -> list[str]:
    """The ids of all one-time keys that a client tried to upload."""
    return [name for request in proxy.asked_for("/keys/upload") for name in request.content.get("one_time_keys", {})]


def _key_id(number: int) -> str:
    return f"signed_curve25519:{base64.b64encode(number.to_bytes(8)).decode().rstrip('=')}"


def _access_token(proxy: HomeserverProxy) -> str:
    return proxy.asked[-1].headers["Authorization"].partition(" ")[2]


def _meets_a_stranger(talk: Talk, bob: Client) -> None:
    """Fail unless Bob reads what somebody sends who takes a one-time key of his first."""
    carol = talk.bed.device("carol")
    room = talk.bed.api.encrypted_room(carol.user, talk.bob.user)
    client = talk.bed.start(carol)
    for each in (client, bob, client):
        each.call("sync")
    said = client.call("send", room=room, text="hello, stranger")
    bob.call("sync")
    assert bob.texts().get(said) == "hello, stranger"


@pytest.mark.parametrize("path", ["/keys/claim", "/sendToDevice/"])
def test_without_its_key_delivered_no_message_is_sent(any_bed: Bed, proxy: HomeserverProxy, path: str) -> None:
    talk, alice, bob = met(any_bed)
    alice.kill()
    alice = any_bed.start(talk.alice, homeserver=proxy.url)
    # A device that Alice has no Olm session with.
    carol = any_bed.start_another(talk.bob, bob)
    carol.call("sync")
    alice.call("sync")
    answers = UNUSABLE if path == "/sendToDevice/" else UNUSABLE + STRANGE
    for answer, passed_on in answers:
        with proxy.answering(path, answer, passed_on), pytest.raises(ClientFailed, match="GroupEncryptionError"):
            alice.call("send", room=talk.room, text="lost words", rotate=True)
    assert "lost words" not in alice.call("history", room=talk.room).values()
    said = talk.say(alice, "found words")
    for client in (bob, carol):
        client.call("sync")
        assert client.texts().get(said) == "found words"
        assert talk.unreadable(client) == [] or client is carol
    talk.both_directions_work(alice, bob)
    assert talk.indices_used_twice() == 0


@pytest.mark.parametrize("path", ["/keys/claim", "/sendToDevice/", "/send/m.room.encrypted/"])
def test_a_homeserver_that_hangs_up_gets_the_same_request_again(
    any_bed: Bed, proxy: HomeserverProxy, path: str
) -> None:
    talk, alice, bob = met(any_bed)
    alice.kill()
    alice = any_bed.start(talk.alice, homeserver=proxy.url)
    carol = any_bed.start_another(talk.bob, bob)
    carol.call("sync")
    alice.call("sync")
    left = iter([False, True])

    def hang_up(pass_on: PassOn) -> Answer | None:
        for passed_on in left:
            if passed_on:
                pass_on()
            return None
        return pass_on()

    with proxy.fault(path, hang_up):
        said = talk.say(alice, "three times a charm", rotate=True)
    assert len({request.path for request in proxy.asked_for(path)[:3]}) == 1
    assert list(alice.call("history", room=talk.room).values()).count("three times a charm") == 1
    for client in (bob, carol):
        client.call("sync")
        assert client.texts().get(said) == "three times a charm"
    assert talk.indices_used_twice() == 0
