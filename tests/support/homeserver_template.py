"""A process that has imported what a client needs, and forks clients: importing takes longer than most tests' work.

It holds no connection, thread or random state, so that a forked client is as new as a started one. For every byte on
the control socket it takes four file descriptors: the client's standard streams, and where to write how it ended.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import traceback
from contextlib import suppress
from typing import Final

# Clients load them by their entry points, but not once more what is here already.
import cryptostore_postgres.plugin  # noqa: F401  # as above
import cryptostore_sqlite.plugin  # noqa: F401  # as above
import homeserver_worker

#: A client's process id, and how it ended: minus the signal, as `subprocess` has it.
NUMBER: Final = struct.Struct("i")


def serve(control: socket.socket) -> None:
    """Fork clients until the other end of the socket is closed."""
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    ends: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            with suppress(BlockingIOError):
                woken.recv(4096)
            _report(ends)
        if control in ready:
            asked, descriptors, _, _ = socket.recv_fds(control, 1, 4)
            if not asked:
                return
            _fork(control, descriptors, ends)


def _report(ends: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            with suppress(BrokenPipeError):
                os.write(ends[pid], NUMBER.pack(os.waitstatus_to_exitcode(status)))
            os.close(ends.pop(pid))


def _fork(control: socket.socket, descriptors: list[int], ends: dict[int, int]) -> None:
    *streams, end = descriptors
    pid = os.fork()
    if pid == 0:
        _become_client(control, streams, [end, *ends.values()])
    for stream in streams:
        os.close(stream)
    ends[pid] = end
    control.sendall(NUMBER.pack(pid))


def _become_client(control: socket.socket, streams: list[int], others: list[int]) -> None:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for standard, stream in enumerate(streams):
            os.dup2(stream, standard)
        for descriptor in (*streams, *others):
            os.close(descriptor)
        control.close()
        homeserver_worker.run()
    except BaseException:  # noqa: BLE001  # whatever it was, this is no template any more
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
