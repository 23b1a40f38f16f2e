"""A proxy between an application and a server, which can fail as networks do."""

from __future__ import annotations

import select
import socket
import struct
import threading
from contextlib import suppress


class Proxy:
    """Passes on what two sides say, until it is told otherwise.

    Attributes:
        port: Where it listens.
        connections: How many connections were opened.
    """

    def __init__(self, port: int, host: str = "localhost") -> None:
        self._target = host, port
        self._listener = socket.create_server(("localhost", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._is_silent = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Accept connections and bytes, and pass nothing on."""
        self._is_silent = True

    def speak(self) -> None:
        """Pass everything on again."""
        self._is_silent = False

    def reset(self) -> None:
        """Cut all connections, as a router that restarts does."""
        for pair in self._pairs:
            for side in pair:
                # With no time to linger, the kernel sends RST.
                with suppress(OSError):
                    side.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    side.shutdown(socket.SHUT_RD)
                side.close()
        self._pairs = []

    def refuse(self) -> None:
        """Cut all connections, and listen no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    close = refuse

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                self._pairs.append((client, server))
                threading.Thread(
                    target=self._pass_on, args=(client, server), daemon=True
                ).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        with suppress(OSError, ValueError):
            while True:
                ready, _, _ = select.select([client, server], [], [], 0.05)
                for side in ready:
                    if self._is_silent:
                        side.recv(65536)
                        continue
                    data = side.recv(65536)
                    if not data:
                        raise OSError
                    other[side].sendall(data)
        client.close()
        server.close()
