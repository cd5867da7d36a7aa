"""Canonical JSON, unpadded base64 and signatures, by the vectors of the Matrix specification."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptostore.trust import unpadded_base64
from cryptostore.trust.canonical_json import canonical_json
from cryptostore.trust.signatures import is_signed, public_key, sign
from leaks import shown

#: Matrix specification, appendices, "Cryptographic Test Vectors".
SEED = unpadded_base64.decode("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
PUBLIC_KEY = "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"
DOMAIN, KEY_ID = "domain", "ed25519:1"
OTHER_SEED = bytes(32)

#: Values of JSON that canonical JSON has too.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8")),
    lambda each: st.lists(each) | st.dictionaries(st.text(st.characters(codec="utf-8")), each),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("{}", "{}"),
        ('{"one": 1, "two": "Two"}', '{"one":1,"two":"Two"}'),
        ('{"b": "2", "a": "1"}', '{"a":"1","b":"2"}'),
        (
            '{"auth": {"success": true, "mxid": "@john.doe:example.com", "profile": {"display_name": "John Doe", '
            '"three_pids": [{"medium": "email", "address": "john.doe@example.org"}, {"medium": "msisdn", '
            '"address": "123456789"}]}}}',
            '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":'
            '"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}',
        ),
        ('{"a": "日本語"}', '{"a":"日本語"}'),
        ('{"本": 2, "日": 1}', '{"日":1,"本":2}'),
        ('{"a": "\\u65E5"}', '{"a":"日"}'),
        ('{"a": null}', '{"a":null}'),
        ('{"a": -0, "b": 1e10}', '{"a":0,"b":10000000000}'),
    ],
)
def test_canonical_json_is_as_the_specification_writes_it(text: str, canonical: str) -> None:
    assert canonical_json(json.loads(text)) == canonical.encode()


def test_keys_are_sorted_by_code_point_and_only_controls_are_escaped() -> None:
    # In UTF-16, as JavaScript sorts, the emoji comes before the private use character.
    assert canonical_json({"\U0001f600": 1, "\ue000": 2}) == '{"\ue000":2,"\U0001f600":1}'.encode()
    assert (
        canonical_json('"\\/\b\f\n\r\t\x0b\x1f\x7f\u2028') == b'"\\"\\\\/\\b\\f\\n\\r\\t\\u000b\\u001f\x7f\xe2\x80\xa8"'
    )


@given(JSON)
def test_canonical_json_says_the_same_and_does_not_depend_on_order(value: Any) -> None:
    canonical = canonical_json(value)
    assert json.loads(canonical) == value
    assert canonical_json(_reversed(value)) == canonical


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(each) for key, each in reversed(value.items())}
    return [_reversed(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "value",
    [0.5, -1.5, math.nan, math.inf, 2**53, -(2**53), 1e300, {1: 2}, {"a": b"bytes"}, {"a": {1, 2}}, [object()]],
)
def test_what_canonical_json_does_not_have_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"canonical JSON has no numbers|a text, not|no values of the type"):
        canonical_json({"a": [value]})


@pytest.mark.parametrize("value", ["secret \ud800", {"secret \udfff": 1}])
def test_half_a_character_is_refused_and_not_shown(value: Any) -> None:
    with pytest.raises(ValueError, match="half of a character") as caught:
        canonical_json(value)
    assert "secret" not in shown(caught.value)


def test_json_that_is_nested_too_deeply_is_refused() -> None:
    value: Any = 0
    for _ in range(sys.getrecursionlimit() * 2):
        value = [value]
    with pytest.raises(ValueError, match="nested too deeply"):
        canonical_json(value)
    assert not is_signed({"a": value, "signatures": {DOMAIN: {KEY_ID: "A" * 86}}}, DOMAIN, PUBLIC_KEY, KEY_ID)


def test_base64_is_as_the_specification_writes_it() -> None:
    vectors = {b"": "", b"f": "Zg", b"fo": "Zm8", b"foo": "Zm9v", b"foob": "Zm9vYg", b"fooba": "Zm9vYmE"}
    for raw, text in {**vectors, b"foobar": "Zm9vYmFy"}.items():
        assert unpadded_base64.encode(raw) == text
        assert unpadded_base64.decode(text) == unpadded_base64.decode(text + "=" * (-len(text) % 4)) == raw


@pytest.mark.parametrize("text", ["secret!", "secre", "_-__", "é", "\ud800", None, 5, b"Zg"])
def test_what_is_not_base64_is_refused_and_not_shown(text: Any) -> None:
    with pytest.raises(ValueError, match="not a base64 text") as caught:
        unpadded_base64.decode(text)
    assert "secre" not in shown(caught.value)


def test_base64_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="the base64 of 3 bytes instead of 4"):
        unpadded_base64.decode("Zm9v", size=4)


@pytest.mark.parametrize(
    ("content", "signature"),
    [
        ({}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
        (
            {"one": 1, "two": "Two"},
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ],
)
def test_signatures_are_as_the_specification_has_them(content: dict[str, Any], signature: str) -> None:
    signed = sign(content, DOMAIN, KEY_ID, SEED)
    assert signed == {**content, "signatures": {DOMAIN: {KEY_ID: signature}}}
    assert public_key(SEED) == PUBLIC_KEY
    assert is_signed(signed, DOMAIN, PUBLIC_KEY, KEY_ID)


def test_a_signed_event_of_the_specification_verifies_with_all_that_is_unsigned() -> None:
    event = {
        "auth_events": [],
        "content": {},
        "depth": 3,
        "hashes": {"sha256": "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"},
        "origin": DOMAIN,
        "origin_server_ts": 1000000,
        "prev_events": [],
        "room_id": "!x:domain",
        "sender": "@a:domain",
        "signatures": {
            DOMAIN: {KEY_ID: "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"}
        },
        "type": "X",
        "unsigned": {"age_ts": 1000000},
    }
    assert is_signed(event, DOMAIN, PUBLIC_KEY, KEY_ID)
    assert not is_signed({**event, "depth": 4}, DOMAIN, PUBLIC_KEY, KEY_ID)


def test_a_signature_is_added_to_a_copy_beside_the_others() -> None:
    first = sign({"a": {"b": 1}, "unsigned": {"age": 1}}, "@other:hs", "ed25519:X", OTHER_SEED)
    both = sign(sign(first, DOMAIN, KEY_ID, SEED), DOMAIN, "ed25519:2", OTHER_SEED)
    assert set(both["signatures"]) == {"@other:hs", DOMAIN}
    assert set(both["signatures"][DOMAIN]) == {KEY_ID, "ed25519:2"}
    assert both["unsigned"] == {"age": 1}
    assert set(first["signatures"]) == {"@other:hs"}
    assert both["a"] is not first["a"]
    assert is_signed(both, "@other:hs", public_key(OTHER_SEED), "ed25519:X")
    assert is_signed(both, DOMAIN, PUBLIC_KEY, KEY_ID)


@pytest.mark.parametrize("found", [None, "text", {"@other:hs": "text", "domain": 5}])
def test_what_a_server_calls_signatures_does_not_hinder_signing(found: Any) -> None:
    signed = sign({"signatures": found}, DOMAIN, KEY_ID, SEED)
    assert list(signed["signatures"]) == [DOMAIN]
    assert is_signed(signed, DOMAIN, PUBLIC_KEY, KEY_ID)


def test_without_a_key_id_the_signature_is_looked_for_under_the_key() -> None:
    signed = sign({"a": 1}, "@alice:hs", f"ed25519:{PUBLIC_KEY}", SEED)
    assert is_signed(signed, "@alice:hs", PUBLIC_KEY)
    assert not is_signed(signed, "@alice:hs", PUBLIC_KEY, KEY_ID)


def test_signing_refuses_other_algorithms_and_seeds_that_are_none() -> None:
    with pytest.raises(ValueError, match="begins with ed25519:"):
        sign({}, DOMAIN, "DEVICE", SEED)
    with pytest.raises(ValueError, match="has 32 bytes, not 31"):
        sign({}, DOMAIN, KEY_ID, SEED[:31])


@given(st.sampled_from([DOMAIN, "", "@x:hs"]) | st.text(), st.text(), st.text() | st.none(), JSON)
def test_whatever_came_is_not_signed_and_does_not_raise(user_id: str, key: str, key_id: str | None, other: Any) -> None:
    signed: dict[str, Any] = sign({"a": 1}, DOMAIN, KEY_ID, SEED)
    assert not is_signed(signed, user_id, key, key_id)
    for content in (
        other,
        {"signatures": other},
        {"signatures": {DOMAIN: other}},
        {"signatures": {DOMAIN: {KEY_ID: other}}},
    ):
        assert not is_signed(content, DOMAIN, PUBLIC_KEY, KEY_ID)
    assert is_signed({**signed, "unsigned": other}, DOMAIN, PUBLIC_KEY, KEY_ID)


@pytest.mark.parametrize("key", ["", "\ud800", "A" * 44, "A" * 46, PUBLIC_KEY[:-1], public_key(OTHER_SEED)])
def test_another_key_did_not_sign(key: str) -> None:
    signed = sign({"a": 1}, DOMAIN, KEY_ID, SEED)
    assert not is_signed(signed, DOMAIN, key, KEY_ID)
