// The verifications of one client, by their transactions; every change of one is told.

const PHASES = { 1: "unsent", 2: "requested", 3: "ready", 4: "started", 5: "cancelled", 6: "done" };
const SAS = "m.sas.v1";

export class Verifications {
    #crypto;
    #tell;
    #requests = new Map();
    #shown = new Map();

    constructor(crypto, tell) {
        this.#crypto = crypto;
        this.#tell = tell;
    }

    // The transaction of a request, whose changes are told from now on.
    watch(request) {
        const id = request.transactionId;
        if (this.#requests.has(id)) return id;
        this.#requests.set(id, request);
        request.on("change", () => this.#changed(id, request));
        this.#changed(id, request);
        return id;
    }

    async ready(id) {
        await this.#requests.get(id).accept();
    }

    async start(id) {
        this.#follow(id, await this.#requests.get(id).startVerification(SAS));
    }

    async confirm(id) {
        await this.#shown.get(id).confirm();
    }

    async mismatch(id) {
        await this.#shown.get(id).mismatch();
    }

    async cancel(id) {
        await this.#requests.get(id).cancel();
    }

    #changed(id, request) {
        this.#tell({
            event: "verification",
            id,
            phase: PHASES[request.phase],
            user: request.otherUserId,
            device: request.otherDeviceId ?? null,
            room: request.roomId ?? null,
            self: request.isSelfVerification,
            code: request.cancellationCode,
        });
        if (request.verifier !== undefined) this.#follow(id, request.verifier);
    }

    #follow(id, verifier) {
        if (this.#shown.has(id)) return;
        this.#shown.set(id, null);
        verifier.on("show_sas", (callbacks) => this.#show(id, callbacks));
        const already = verifier.getShowSasCallbacks();
        if (already !== null) this.#show(id, already);
        verifier.verify().then(
            () => this.#tell({ event: "verified", id }),
            (error) => this.#tell({ event: "not verified", id, text: String(error) }),
        );
    }

    #show(id, callbacks) {
        this.#shown.set(id, callbacks);
        const { emoji, decimal } = callbacks.sas;
        this.#tell({ event: "sas", id, emoji: emoji?.map(([symbol]) => symbol) ?? null, decimal: decimal ?? null });
    }
}
