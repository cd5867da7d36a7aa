#!/bin/sh
# aiohttp: one call of put() can reach the server twice, and a POST in nio as well, while the caller sees a
# single success.
#
# Versions: aiohttp 3.14.5, matrix-nio 0.26.0.
#
# Guess, written before the run: a client library without a retry setting sends a request once. If the server
#   reads it and the connection closes before the answer, the call raises ServerDisconnectedError, and the
#   program decides.
#
# Seen: a server that answers a first request, then reads a second one on the same connection and closes it (a
#   proxy that is reloaded, a worker that is replaced). GET, PUT and DELETE: the server gets the request twice,
#   body included; the caller sees 200 and nothing else. POST: once, and the error. nio's AsyncClient then sends
#   the POST again itself: keys_claim() is one call, one answer, two requests.
#
# Why the guess is wrong: a kept connection may have been closed by the server at any time, so aiohttp repeats
#   idempotent methods once if a reused connection breaks before an answer. It cannot know whether the request
#   had been read. nio retries on connection errors, for ever by default, whatever the method.
#
# For somebody who stores keys: "sent at most once" does not exist below one's own code. PUTs need the same
#   transaction id and the same bytes, which must be stored before the first try; a claim may use up two of a
#   peer's one-time keys; an upload must bear being repeated. A fake server that counts calls of one's client
#   instead of requests never shows it.
. "$(dirname "$0")/common.sh"
install aiohttp==3.14.5 'matrix-nio[e2e]==0.26.0'
cd "$work"
"$python" - <<'PY'
import asyncio

import aiohttp
from nio import AsyncClient

received = []


async def read_request(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lengths = [
        int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
    ]
    body = await reader.readexactly(lengths[0]) if lengths else b""
    received.append((head.split()[0], body))


async def serve(reader, writer):
    """Answer the first request of a connection; read the second and close, but only once."""
    try:
        while True:
            await read_request(reader)
            if len(received) == 2:
                break
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 24\r\n\r\n"
                b'{"one_time_keys": {   }}'
            )
            await writer.drain()
    except asyncio.IncompleteReadError:
        pass
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]

    async def send(method):
        received.clear()
        async with aiohttp.ClientSession() as session:
            await (await session.get(url)).read()  # leaves a connection to be used again
            async with session.request(method, url, data=b"key") as response:
                return response.status

    for method in ("GET", "PUT", "DELETE"):
        assert await send(method) == 200
        assert received == [("GET", b""), (method, b"key"), (method, b"key")], "sent twice"
    try:
        await send("POST")
        raise AssertionError("a POST should fail")
    except aiohttp.ServerDisconnectedError:
        assert received == [("GET", b""), ("POST", b"key")]

    received.clear()
    client = AsyncClient(url, store_path=".")
    client.restore_login("@user:host", "DEVICE", "token")
    await client.keys_claim({"@peer:host": ["DEVICE"]})
    first = len(received)
    await client.keys_claim({"@peer:host": ["DEVICE"]})
    await client.close()
    assert first == 1 and [method for method, _ in received] == ["POST"] * 3, received
    print("PUT: one call, two requests; nio's keys_claim: one call, two POSTs")


asyncio.run(main())
PY
