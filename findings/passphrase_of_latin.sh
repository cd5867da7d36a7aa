#!/bin/sh
# nio: room keys that it exports with a passphrase such as "grün" open with that passphrase nowhere else, and what
# others export with it does not open in nio.
#
# Versions: matrix-nio 0.26.0, pycryptodome 3.23.0, cryptography 46.0.3 as the other client.
#
# Guess, not written down before, because a file that did not open came first: a passphrase is UTF-8 everywhere, as the
#   text of every Matrix client is; or a letter that is not ASCII is an error.
#
# Seen: nio writes the file without a word. With the passphrase in UTF-8, which Element and matrix-js-sdk take, its HMAC
#   does not match: "wrong passphrase?". With the passphrase in Latin-1 it does. The other way round, nio says of the
#   other client's file that its HMAC check failed. A passphrase that Latin-1 lacks, such as "緑", is a
#   UnicodeEncodeError, whose text is about a codec.
#
# Why the guess is wrong: the specification ("Key exports") says PBKDF2 of the passphrase, and not in which encoding.
#   nio hands a str to pycryptodome's PBKDF2, which turns every str into Latin-1.
#
# For somebody who stores keys: the person who moves from one client to the other has the right passphrase, and is told
#   that it is wrong; the keys are often all that is left. Where a file does not open, try both encodings; write UTF-8.
#   And do not let a library that takes "str or bytes" choose the encoding of a secret.
. "$(dirname "$0")/common.sh"
cd "$work"
install 'matrix-nio[e2e]==0.26.0' cryptography==46.0.3 pycryptodome==3.23.0
"$python" - <<'PY'
import base64
import hashlib
import hmac
import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from nio.crypto.key_export import FOOTER, HEADER, decrypt_and_read, encrypt_and_save

ROUNDS = 1_000


def keys(passphrase, salt, rounds):
    derived = hashlib.pbkdf2_hmac("sha512", passphrase, salt, rounds, 64)
    return derived[:32], derived[32:]


def is_opened_by(file, passphrase):
    """Whether the passphrase is that of a file, by the letter of the specification."""
    text = open(file).read().replace("\n", "").removeprefix(HEADER).removesuffix(FOOTER)
    payload = base64.b64decode(text + "=" * (-len(text) % 4))
    _, hmac_key = keys(passphrase, payload[1:17], int.from_bytes(payload[33:37], "big"))
    return hmac.compare_digest(hmac.digest(hmac_key, payload[:-32], "sha256"), payload[-32:])


def write_as_others_do(file, text, passphrase):
    head = b"\x01" + os.urandom(16) + os.urandom(8) + bytes(8) + ROUNDS.to_bytes(4, "big")
    aes_key, hmac_key = keys(passphrase.encode(), head[1:17], ROUNDS)
    payload = head + Cipher(algorithms.AES(aes_key), modes.CTR(head[17:33])).encryptor().update(text)
    payload += hmac.digest(hmac_key, payload, "sha256")
    open(file, "w").write("\n".join([HEADER, base64.b64encode(payload).decode(), FOOTER]))


encrypt_and_save(b"[]", "ascii.txt", "green", ROUNDS)
assert is_opened_by("ascii.txt", b"green"), "what both agree about"
encrypt_and_save(b"[]", "nio.txt", "grün", ROUNDS)
assert not is_opened_by("nio.txt", "grün".encode())
assert is_opened_by("nio.txt", "grün".encode("latin-1"))

write_as_others_do("ascii.txt", b"[]", "green")
assert decrypt_and_read("ascii.txt", "green") == b"[]", "what both agree about"
write_as_others_do("others.txt", b"[]", "grün")
try:
    decrypt_and_read("others.txt", "grün")
except ValueError as error:
    print("nio, of another client's file with the right passphrase:", error)
else:
    raise AssertionError("nio opened it")
assert decrypt_and_read("others.txt", "grün".encode().decode("latin-1")) == b"[]", "the cure"

try:
    encrypt_and_save(b"[]", "green.txt", "緑", ROUNDS)
except UnicodeEncodeError as error:
    print("nio, asked to export with a passphrase in Japanese:", error)
else:
    raise AssertionError("nio wrote it")
print("exported by nio with 'grün': opens with UTF-8 False, with Latin-1 True")
PY
