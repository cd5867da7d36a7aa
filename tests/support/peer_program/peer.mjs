// A person's client as Element has one: matrix-js-sdk, driven by lines of JSON. One argument: the folder of its modules.
//
// A command is {"id", "do", ...}; its answer {"id", "result"} or {"id", "error", "text"}.
// Lines with "event" come by themselves. What the SDK logs goes to standard error.

import readline from "node:readline";
import { pathToFileURL } from "node:url";
import { Verifications } from "./verifications.mjs";

// Standard output is the test's. The SDK remembers these when it is loaded.
for (const level of ["log", "info", "debug"]) console[level] = () => {};

const library = pathToFileURL(`${process.argv[2]}/matrix-js-sdk/lib/`);
const { createClient, ClientEvent, MatrixEventEvent, RoomEvent, SyncState } = await import(new URL("index.js", library));
const { CryptoEvent, OnlySignedDevicesIsolationMode, AllDevicesIsolationMode, decodeRecoveryKey } = await import(
    new URL("crypto-api/index.js", library)
);

const { RustBackupManager } = await import(new URL("rust-crypto/backup.js", library));

// The SDK waits up to ten seconds before it backs up, for the sake of servers with many users.
RustBackupManager.maxBackupLoopStartDelayMillis = 100;

const PATIENCE = 60_000;
const HISTORY = 1_000;

function tell(message) {
    process.stdout.write(JSON.stringify(message) + "\n");
}

const logger = {
    trace() {},
    debug() {},
    info() {},
    warn: (...words) => console.error("warning:", ...words),
    error: (...words) => console.error("error:", ...words),
    getChild: () => logger,
};

function trust(status) {
    return {
        verified: status.isCrossSigningVerified(),
        was_verified: status.wasCrossSigningVerified(),
        needs_approval: status.needsUserApproval,
    };
}

class Peer {
    #client;
    #storageKeys = new Map();
    #recoveryKey;
    #password;
    #changed = new EventTarget();
    #withheld = [];
    #verifications;

    get #crypto() {
        return this.#client.getCrypto();
    }

    async login({ homeserver, user, password, isolation = true }) {
        this.#password = password;
        const identifier = { type: "m.id.user", user };
        const asking = createClient({ baseUrl: homeserver, logger });
        const login = await asking.loginRequest({ type: "m.login.password", identifier, password });
        this.#client = createClient({
            baseUrl: homeserver,
            userId: login.user_id,
            deviceId: login.device_id,
            accessToken: login.access_token,
            logger,
            cryptoCallbacks: {
                getSecretStorageKey: ({ keys }) => this.#storageKey(Object.keys(keys)),
                cacheSecretStorageKey: (keyId, _, key) => this.#storageKeys.set(keyId, key),
            },
        });
        await this.#client.initRustCrypto({ useIndexedDB: false });
        await this.isolate({ on: isolation });
        this.#verifications = new Verifications(this.#crypto, tell);
        this.#listen();
        return { device_id: login.device_id, keys: await this.#crypto.getOwnDeviceKeys() };
    }

    #storageKey(keyIds) {
        const cached = keyIds.find((keyId) => this.#storageKeys.has(keyId));
        if (cached !== undefined) return [cached, this.#storageKeys.get(cached)];
        return this.#recoveryKey === undefined ? null : [keyIds[0], this.#recoveryKey];
    }

    #listen() {
        const changed = () => this.#changed.dispatchEvent(new Event("changed"));
        this.#client.on(MatrixEventEvent.Decrypted, changed);
        this.#client.on(RoomEvent.Timeline, changed);
        this.#client.on(ClientEvent.Sync, changed);
        this.#client.on(ClientEvent.ToDeviceEvent, (event) => {
            if (event.getType() !== "m.room_key.withheld") return;
            this.#withheld.push({ sender: event.getSender(), ...event.getContent() });
        });
        this.#client.on(CryptoEvent.UserTrustStatusChanged, (user, status) =>
            tell({ event: "user", user, ...trust(status) }),
        );
        this.#client.on(CryptoEvent.VerificationRequestReceived, (request) => this.#verifications.watch(request));
    }

    async isolate({ on }) {
        const mode = on ? new OnlySignedDevicesIsolationMode() : new AllDevicesIsolationMode(false);
        this.#crypto.setDeviceIsolationMode(mode);
    }

    async sync() {
        const prepared = new Promise((resolve) =>
            this.#client.on(ClientEvent.Sync, (state) => state === SyncState.Prepared && resolve()),
        );
        await this.#client.startClient({ initialSyncLimit: HISTORY, pollTimeout: 5_000 });
        await prepared;
        while (!(await this.#isKnown())) await new Promise((resolve) => setTimeout(resolve, 50));
    }

    // Whether the homeserver has this device's keys, which the SDK uploads after its first sync.
    async #isKnown() {
        const [user, device] = [this.#client.getSafeUserId(), this.#client.getDeviceId()];
        const { device_keys: keys } = await this.#client.downloadKeysForUsers([user]);
        return device in (keys[user] ?? {});
    }

    async create_room({ invite = [] }) {
        const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
        const room = { preset: "private_chat", invite, initial_state: [encryption] };
        return (await this.#client.createRoom(room)).room_id;
    }

    async join({ room }) {
        await this.#client.joinRoom(room);
        await this.#until(() => this.#client.getRoom(room)?.getMyMembership() === "join", `joining ${room}`);
    }

    async send({ room, text }) {
        await this.#until(() => this.#client.getRoom(room)?.hasEncryptionStateEvent(), `the encrypted room ${room}`);
        return (await this.#client.sendTextMessage(room, text)).event_id;
    }

    // The next message is in a new Megolm session.
    async rotate({ room }) {
        await this.#crypto.forceDiscardSession(room);
    }

    // One message once it is decrypted; with `failing`, once it could not be.
    async read({ room, message: id, failing = false }) {
        const found = () => this.#event(room, id);
        const settled = () => found()?.getClearContent() && found().isDecryptionFailure() === failing;
        await this.#until(settled, `${failing ? "the failure" : "the text"} of ${id}`, async () =>
            found() ? await this.#view(found()) : "it did not come",
        );
        return this.#view(found());
    }

    // Every message of a room; with `retry`, those that could not be decrypted are tried once more.
    async messages({ room, retry = false }) {
        const messages = this.#timeline(room).filter((event) => event.isEncrypted());
        if (retry) await Promise.all(messages.map((event) => this.#retried(event)));
        return Promise.all(messages.map((event) => this.#view(event)));
    }

    async #retried(event) {
        if (event.isDecryptionFailure()) await event.attemptDecryption(this.#crypto, { isRetry: true });
    }

    #timeline(room) {
        return this.#client.getRoom(room)?.getLiveTimeline().getEvents() ?? [];
    }

    #event(room, id) {
        return this.#timeline(room).find((event) => event.getId() === id);
    }

    async #view(event) {
        const failure = event.isDecryptionFailure() ? event.decryptionFailureReason : null;
        const text = failure === null ? (event.getClearContent()?.body ?? null) : null;
        const shield = text === null ? null : await this.#crypto.getEncryptionInfoForEvent(event);
        return {
            id: event.getId(),
            sender: event.getSender(),
            text,
            failure,
            colour: shield?.shieldColour ?? null,
            reason: shield?.shieldReason ?? null,
        };
    }

    async #until(condition, what, state = async () => "") {
        if (condition()) return;
        await new Promise((resolve, reject) => {
            const ended = () => {
                clearTimeout(timer);
                this.#changed.removeEventListener("changed", look);
            };
            const look = () => {
                if (!condition()) return;
                ended();
                resolve();
            };
            const timer = setTimeout(async () => {
                ended();
                reject(new Error(`waited in vain for ${what}: ${JSON.stringify(await state())}`));
            }, PATIENCE);
            this.#changed.addEventListener("changed", look);
        });
    }

    async withheld() {
        return this.#withheld;
    }

    async user({ user }) {
        await this.#crypto.userHasCrossSigningKeys(user, true);
        return trust(await this.#crypto.getUserVerificationStatus(user));
    }

    // Null if there is no such device.
    async device({ user, device }) {
        await this.#crypto.getUserDeviceInfo([user], true);
        const status = await this.#crypto.getDeviceVerificationStatus(user, device);
        return status && { signed_by_owner: status.signedByOwner, verified: status.crossSigningVerified };
    }

    // The person accepts that a user's identity is another now.
    async accept_identity({ user }) {
        await this.#crypto.pinCurrentUserIdentity(user);
    }

    async withdraw_verification({ user }) {
        await this.#crypto.withdrawVerificationRequirement(user);
    }

    // Cross-signing, secret storage and backup, all new; answers the recovery key.
    async bootstrap() {
        await this.#crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: this.#authorise });
        return this.#makeSecretStorage();
    }

    // What "reset" in Element does, and the new secret storage that it asks for afterwards.
    async reset_identity() {
        this.#storageKeys.clear();
        await this.#crypto.resetEncryption(this.#authorise);
        return this.#makeSecretStorage();
    }

    async #makeSecretStorage() {
        const made = await this.#crypto.createRecoveryKeyFromPassphrase();
        await this.#crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => made,
            setupNewSecretStorage: true,
            setupNewKeyBackup: true,
        });
        return made.encodedPrivateKey;
    }

    #authorise = async (ask) => {
        const identifier = { type: "m.id.user", user: this.#client.getUserId() };
        await ask({ type: "m.login.password", identifier, password: this.#password });
    };

    // A new session with the recovery key: sign this device, use the backup, and read what is in it. Null without one.
    async restore({ recovery_key }) {
        this.#recoveryKey = decodeRecoveryKey(recovery_key);
        await this.#crypto.userHasCrossSigningKeys(this.#client.getUserId(), true);
        // As Element calls it: what it finds incomplete it replaces.
        await this.#crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: this.#authorise });
        if ((await this.#crypto.getKeyBackupInfo()) === null) return null;
        await this.#crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        await this.#crypto.checkKeyBackupAndEnable();
        return this.restore_backup();
    }

    async restore_backup() {
        const { total, imported } = await this.#crypto.restoreKeyBackup();
        return { total, imported };
    }

    // Returns when the server has all room keys.
    async back_up() {
        const done = new Promise((resolve) =>
            this.#client.on(CryptoEvent.KeyBackupSessionsRemaining, (left) => left === 0 && resolve()),
        );
        await this.#crypto.backupManager.maybeUploadKey();
        await done;
    }

    // What Element asks before it says that all is set up.
    async own() {
        const cross_signing = await this.#crypto.getCrossSigningStatus();
        const backup = await this.#crypto.getKeyBackupInfo();
        return {
            cross_signing_ready: await this.#crypto.isCrossSigningReady(),
            secret_storage_ready: await this.#crypto.isSecretStorageReady(),
            secrets_cached: cross_signing.privateKeysCachedLocally,
            backup_version: await this.#crypto.getActiveSessionBackupVersion(),
            backup_trust: backup && (await this.#crypto.isKeyBackupTrusted(backup)),
        };
    }

    // Of a room, of one device, or, with neither, of the person's other devices.
    async request_verification({ user, room, device }) {
        if (room !== undefined) {
            return this.#verifications.watch(await this.#crypto.requestVerificationDM(user, room));
        }
        if (device === undefined) return this.#verifications.watch(await this.#crypto.requestOwnUserVerification());
        return this.#verifications.watch(await this.#crypto.requestDeviceVerification(user, device));
    }

    async ready({ verification }) {
        await this.#verifications.ready(verification);
    }

    async start({ verification }) {
        await this.#verifications.start(verification);
    }

    async confirm({ verification }) {
        await this.#verifications.confirm(verification);
    }

    async mismatch({ verification }) {
        await this.#verifications.mismatch(verification);
    }

    async cancel({ verification }) {
        await this.#verifications.cancel(verification);
    }

    async logout() {
        await this.#client.logout(true);
    }
}

const peer = new Peer();

async function handle(line) {
    const { id, do: name, ...parameters } = JSON.parse(line);
    try {
        tell({ id, result: (await peer[name](parameters)) ?? null });
    } catch (error) {
        console.error(error);
        tell({ id, error: error.name ?? "Error", text: error.message ?? String(error) });
    }
}

process.on("unhandledRejection", (error) => console.error("unhandled:", error));
// Commands until standard input ends, which is also when the test dies.
for await (const line of readline.createInterface({ input: process.stdin })) void handle(line);
process.exit(0);
