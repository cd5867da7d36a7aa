"""Two homeservers that federate over TLS on this machine, and whose connection can be cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from cryptostore_contract.ports import free_port
from cryptostore_contract.proxy import Proxy
from cryptostore_contract.server import certificates
from homeserver import Homeserver
from homeserver_settings import Setting

_HERE: Final = "127.0.0.1"
_RETRY: Final = {"destination_min_retry_interval": "1s", "destination_max_retry_interval": "1s"}


class FederatedHomeserver(Homeserver):
    """Is found by others behind a proxy, whose port is a part of its name."""

    def __init__(self) -> None:
        self._federation_port = free_port()
        self.proxy: Final = Proxy((_HERE, self._federation_port))
        super().__init__()

    def _chosen(self) -> Sequence[Setting]:
        made = certificates(self.folder, _HERE)
        listener = {
            "port": self._federation_port,
            "bind_addresses": [_HERE],
            "type": "http",
            "tls": True,
            "resources": [{"names": ["federation"]}],
        }
        given = {setting.option: setting for setting in super()._chosen()}
        del given["federation_domain_whitelist"]
        name, listeners = given["server_name"], given["listeners"]
        given["server_name"] = replace(name, value=f"{_HERE}:{self.proxy.port}")
        given["listeners"] = replace(listeners, value=[*listeners.value, listener])
        return [
            *given.values(),
            Setting("tls_certificate_path", str(made.chain), "of the listener for other servers", ()),
            Setting("tls_private_key_path", str(made.key), "of the listener for other servers", ()),
            Setting("federation_verify_certificates", False, "no authority signs for this machine", ()),
            Setting("ip_range_blacklist", [], "the other server is on this machine", ()),
            Setting("federation", _RETRY, "they meet again at once, not after ten minutes", ()),
        ]

    def close(self) -> None:
        super().close()
        self.proxy.close()


@contextmanager
def apart(*servers: FederatedHomeserver) -> Iterator[None]:
    """While the context is open no server reaches another."""
    for server in servers:
        server.proxy.refuse()
        server.proxy.cut()
    try:
        yield
    finally:
        for server in servers:
            server.proxy.accept()
