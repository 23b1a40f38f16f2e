"""A proxy between an application and a server, which can fail as networks do."""

from __future__ import annotations

import select
import socket
import struct
import threading
from contextlib import suppress


class Proxy:
    """Passes on what two sides say, until it is told otherwise; counts connections."""

    def __init__(self, port: int, listen: str = "localhost") -> None:
        self._target = "localhost", port
        self._listener = socket.create_server((listen, 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._is_silent = False
        self._server_is_silent = False
        self._word: bytes | None = None
        self._passes_word = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.RLock()
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Accept connections and bytes, and pass nothing on."""
        self._is_silent = True

    def silence_server(self) -> None:
        """Pass on what clients say, and nothing of what the server says."""
        self._server_is_silent = True

    def silence_at(self, word: bytes, *, passing: bool) -> None:
        """Pass nothing more on when a client says a word, which may still pass."""
        self._word, self._passes_word = word, passing

    def speak(self) -> None:
        """Pass everything on again, in connections that heard no word."""
        self._is_silent = self._server_is_silent = False
        self._word = None

    def reset(self) -> None:
        """Cut all connections, as a router that restarts does."""
        with self._lock:
            # The client believes to be connected before the proxy accepts.
            self._accept_waiting()
            for pair in self._pairs:
                for side in pair:
                    # With no time to linger, the kernel sends RST.
                    linger = struct.pack("ii", 1, 0)
                    with suppress(OSError):
                        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        side.shutdown(socket.SHUT_RD)
                    side.close()
            self._pairs = []

    def refuse(self) -> None:
        """Cut all connections, and listen no more."""
        with self._lock:
            self.reset()
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    close = refuse

    def _accept(self) -> None:
        with suppress(OSError, ValueError):
            while True:
                select.select([self._listener], [], [])
                with self._lock:
                    self._accept_waiting()

    def _accept_waiting(self) -> None:
        while self._listener.fileno() >= 0:
            if not select.select([self._listener], [], [], 0)[0]:
                return
            client, _ = self._listener.accept()
            self.connections += 1
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            pair = client, server
            self._pairs.append(pair)
            threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        is_mute = False
        with suppress(OSError, ValueError):
            while True:
                ready, _, _ = select.select([client, server], [], [], 0.05)
                for side in ready:
                    data = side.recv(65536)
                    if not data:
                        raise OSError
                    if self._is_silent or is_mute:
                        continue
                    if self._server_is_silent and side is server:
                        continue
                    word = self._word
                    is_mute = bool(word) and side is client and word in data
                    if not is_mute or self._passes_word:
                        other[side].sendall(data)
        client.close()
        server.close()
