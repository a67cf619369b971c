"""A web server on 127.0.0.1 that fakes build on: it starts and stops with a block, and says nothing by itself."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["LocalServer", "Reply"]

Reply = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body; a `Content-Length` that promises more than the body breaks the connection there."""


class LocalServer(ABC):
    """A threaded server that lives as long as its `with` block; say what it replies in `serve`."""

    def __enter__(self) -> Self:
        self._lock = threading.Lock()  # for what `serve` counts
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.fake = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def origin(self) -> str:
        """Where it listens, such as `http://127.0.0.1:8000`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @abstractmethod
    def serve(self, method: str, path: str, headers: Message, body: bytes) -> Reply:
        """Return the reply to a request; called from many threads at once."""

    def pause(self, seconds: float) -> None:
        """Wait so long, or until the server stops."""
        self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: LocalServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up; that is what they are tested for."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet a reply: headers sent alone wait 40 ms for their acknowledgement
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        if len(sent := self.rfile.read(size)) < size:  # the client hung up
            self.close_connection = True
            return
        status, said, payload = self.server.fake.serve(self.command, self.path, self.headers, sent)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(payload)), **said}
        self.close_connection = int(headers["Content-Length"]) != len(payload)
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)
        except OSError:  # the client gave up waiting
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a test's output is its own."""
