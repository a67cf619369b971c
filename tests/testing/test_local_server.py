"""The server that fakes build on starts, stops, and breaks connections on demand."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from email.message import Message
from urllib.parse import urlsplit

import pytest

from vlm_tune.testing.local_server import LocalServer, Reply


class Echo(LocalServer):
    """Says what it got; `/stall` does not, and `/cut` breaks off."""

    def serve(self, method: str, path: str, headers: Message, body: bytes) -> Reply:
        if path == "/stall":
            self.pause(60)
        said = f"{method} {path} {headers['x-word']} {body.decode()}".encode()
        return 201, {"Content-Length": "4096"} if path == "/cut" else {"X-Answer": "yes"}, said


def ask(server: Echo, path: str, method: str, body: bytes | None = None) -> tuple[int, str | None, bytes]:
    request = urllib.request.Request(server.origin + path, data=body, method=method, headers={"X-Word": "hello"})
    with urllib.request.urlopen(request, timeout=5) as reply:
        return reply.status, reply.headers["X-Answer"], reply.read()


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_request_reaches_serve_whole(method: str) -> None:
    with Echo() as server:
        body = None if method == "GET" else b"and a body"
        assert ask(server, "/a?b=c", method, body) == (
            201,
            "yes",
            f"{method} /a?b=c hello {(body or b'').decode()}".encode(),
        )


def test_a_promise_of_more_breaks_the_connection_there() -> None:
    with Echo() as server, pytest.raises(http.client.IncompleteRead):
        ask(server, "/cut", "GET")


def test_it_stops_at_once_whoever_waits(capfd: pytest.CaptureFixture[str]) -> None:
    with Echo() as server:
        waiting = http.client.HTTPConnection(urlsplit(server.origin).netloc, timeout=5)
        waiting.request("GET", "/stall")
        start = time.monotonic()
    assert time.monotonic() - start < 2
    waiting.close()
    with pytest.raises(urllib.error.URLError):
        ask(server, "/", "GET")
    assert capfd.readouterr().err == ""
