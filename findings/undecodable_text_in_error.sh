#!/bin/sh
# msgspec: a document that cannot be decoded raises an error that is none of msgspec's, and holds the text itself.
#
# Versions: msgspec 0.22.0, msgpack 1.2.4.
#
# Guess, written before the run: whatever is wrong with a document is a msgspec.DecodeError, or its subclass
#   ValidationError. Its text names a path, never a value: "Expected `str`, got `int` - at `$.token`".
#
# Seen: a token that msgpack wrote as raw bytes, as every MessagePack before 2013 and msgpack with
#   use_bin_type=False do, and that is not UTF-8, is a UnicodeDecodeError, with MessagePack as with JSON. "except
#   msgspec.MsgspecError" lets it pass. str() of it shows one byte, but repr() the whole text, and so does its
#   attribute "object", which error collectors store with the locals.
#
# Why the guess is wrong: msgspec leaves text to Python's decoder and hands its error on. UnicodeDecodeError is a
#   ValueError, as msgspec's errors are, so "except ValueError" works; and it keeps what it was given, to let
#   error handlers go on with it.
#
# For somebody who stores keys: a decrypted record with one damaged field puts the secret beside it into no log,
#   but the damaged field's own text, which may be a token but for one byte. Catch ValueError, and raise your own
#   error "from None": with "from error" the text goes along to whatever shows an error's causes by repr().
. "$(dirname "$0")/common.sh"
install msgspec==0.22.0 msgpack==1.2.4
"$python" - <<'PY'
import msgpack
import msgspec

SECRET = b"syt_secret_token_\xe9"  # é, from a system that wrote Latin-1


class Login(msgspec.Struct):
    token: str


def error_of(decode, document):
    try:
        decode(document, type=Login)
    except Exception as error:
        return error
    raise AssertionError("it should not be decoded")


documents = {
    msgspec.msgpack.decode: msgpack.packb({"token": SECRET}, use_bin_type=False),
    msgspec.json.decode: b'{"token": "%s"}' % SECRET,
}
for decode, document in documents.items():
    error = error_of(decode, document)
    assert type(error) is UnicodeDecodeError and not isinstance(error, msgspec.MsgspecError), error
    assert "syt_secret" not in str(error)
    assert "syt_secret_token" in repr(error) and error.object == SECRET

wrong_type = error_of(msgspec.msgpack.decode, msgpack.packb({"token": 5}))
assert type(wrong_type) is msgspec.ValidationError and "Expected `str`, got `int`" in str(wrong_type)
print(f"not a msgspec error: {error!r}")
PY
