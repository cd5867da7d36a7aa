// What Element does with a file of exported room keys: its own SDK takes one in, and writes one of all that it has then.
//
// Arguments: the folder of its modules, the file to read, the file to write. The passphrase comes by standard input; the
// answer, a line of JSON, says how many keys the file had, and how many of them the SDK took.

import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [modules, source, destination] = process.argv.slice(2);
const library = pathToFileURL(`${modules}/@matrix-org/matrix-sdk-crypto-wasm/node.mjs`);
const { DeviceId, initAsync, OlmMachine, UserId } = await import(library);

await initAsync();
const passphrase = readFileSync(0, "utf-8");
const machine = await OlmMachine.initialize(new UserId("@ada:example.org"), new DeviceId("ADASDEVICE"));
const keys = OlmMachine.decryptExportedRoomKeys(readFileSync(source, "utf-8"), passphrase);
const { importedCount, totalCount } = await machine.importExportedRoomKeys(keys, () => {});
const all = await machine.exportRoomKeys(() => true);
writeFileSync(destination, OlmMachine.encryptExportedRoomKeys(all, passphrase, 500_000));
process.stdout.write(JSON.stringify({ total: totalCount, imported: importedCount }) + "\n");
