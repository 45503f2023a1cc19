"""An HTTPS proxy on loopback: names of Azure lead to stand-ins, every other name nowhere.

So the SDKs speak TLS to hosts with their real names, in every process that has `HTTPS_PROXY`,
without a hosts file or a patched resolver (RFC 9110, CONNECT).
"""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from collections.abc import Mapping
from fnmatch import fnmatch


class ConnectProxy(socketserver.ThreadingTCPServer):
    """Connects `host:port` to a loopback port.

    Attributes:
        url: for `HTTPS_PROXY`.
        refused: the names that nobody has, as they were asked for.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, ports: Mapping[str, int]) -> None:
        """Start.

        Args:
            ports: patterns of host names (`*.vault.azure.net`) to ports of this machine.
        """
        self._ports = ports
        self.refused: list[str] = []
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def port_of(self, host: str) -> int | None:
        return next((port for pattern, port in self._ports.items() if fnmatch(host, pattern)), None)

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Tunnel(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        assert isinstance(self.server, ConnectProxy)
        method, target, _version = self.rfile.readline().decode().split()
        while self.rfile.readline().strip():
            pass
        host = target.partition(":")[0].lower()
        port = self.server.port_of(host)
        if method != "CONNECT" or port is None:
            self.server.refused.append(target)
            self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ends = {self.connection: upstream, upstream: self.connection}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    try:
                        data = end.recv(65536)
                        ends[end].sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
