"""A headless Chromium under remote control, over a pipe: no port is opened, and nothing but Chromium is needed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

__all__ = ["Chromium", "chromium", "find"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find() -> str | None:
    """Return the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


class Chromium:
    """One tab. `events` holds what the browser reported, newest last."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._buffer = b""
        self._last = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []

    def attach(self, width: int, height: int, *, dark: bool = False) -> Self:
        """Take over a new tab of a size in CSS pixels."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Performance"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        return self

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a file and wait until it and its images are there."""
        self._go(page.resolve().as_uri() + fragment)

    def leave(self) -> None:
        """Go to an empty page, and wait for it: its arrival would be taken for that of the next one."""
        self._go("about:blank")

    def _go(self, address: str) -> None:
        start = len(self.events)
        self.call("Page.navigate", url=address)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events[start:]):
            self.events.append(self._read())

    def run(self, script: str) -> Any:
        """Return what an expression of JavaScript gives, promises awaited."""
        options = {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        result = self.call("Runtime.evaluate", **options)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:500])
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key, such as `ArrowRight` or `Enter`."""
        text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **_code(key), **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, **_code(key))

    def settle(self) -> None:
        """Wait until two frames were drawn and every image in the document has arrived or failed.

        Lazy images out of sight are not asked for, and not waited for.
        """
        self.run(
            "new Promise(done => { const near = image => { const box = image.getBoundingClientRect();"
            " return box.width && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth };"
            "const there = image => image.complete || !image.src || image.loading === 'lazy' && !near(image);"
            "const look = () => [...document.images].every(there)"
            " ? requestAnimationFrame(() => requestAnimationFrame(done)) : setTimeout(look, 5); look(); })"
        )

    def screenshot(self, path: Path) -> Path:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def requests(self) -> list[str]:
        """Return the address of everything that was asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Return what the console, the content policy or an uncaught error said."""
        found = [e["params"]["entry"]["text"] for e in self.events if e.get("method") == "Log.entryAdded"]
        found += [str(e["params"]["args"]) for e in self.events if e.get("method") == "Runtime.consoleAPICalled"]
        return found + [str(e["params"]) for e in self.events if e.get("method") == "Runtime.exceptionThrown"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._answers, 1 << 20)
            if not chunk:
                raise RuntimeError("Chromium is gone")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


@contextmanager
def chromium(folder: Path, *, width: int = 1440, height: int = 900, dark: bool = False) -> Iterator[Chromium]:
    """Start a headless Chromium with its profile in a folder, and stop it at the end.

    Raises:
        FileNotFoundError: There is none on the path.
    """
    program = find()
    if program is None:
        raise FileNotFoundError(f"no Chromium on the path (looked for {', '.join(_NAMES)})")
    ours, theirs = _pipes()
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
               "--enable-precise-memory-info", "--remote-debugging-pipe", f"--user-data-dir={folder}"]  # fmt: skip

    def place() -> None:
        # Chromium reads its commands from descriptor 3 and answers on 4.
        os.dup2(theirs[0], 3)
        os.dup2(theirs[1], 4)

    with _taken(3, 4):
        # Descriptors of Python are closed when a program begins, but for those that `place` makes.
        process = subprocess.Popen(
            command, preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    for descriptor in theirs:
        os.close(descriptor)
    browser = Chromium(ours[1], ours[0])
    try:
        yield browser.attach(width, height, dark=dark)
        browser._session = ""
        with suppress(RuntimeError, OSError):
            browser.call("Browser.close")
    finally:
        for descriptor in ours:
            os.close(descriptor)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        time.sleep(0)


@contextmanager
def _taken(*descriptors: int) -> Iterator[None]:
    """Hold descriptors, so that the pipe by which `Popen` hears of the child's start is none of them."""
    held = [os.open(os.devnull, os.O_RDONLY)]
    while held[-1] <= max(descriptors):
        held.append(os.open(os.devnull, os.O_RDONLY))
    try:
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


def _pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (where we read, where we write) and (where Chromium reads, where it writes)."""
    their_read, our_write = os.pipe()
    our_read, their_write = os.pipe()
    # Out of the way of 3 and 4, which the child is about to take.
    high = tuple(fcntl.fcntl(descriptor, fcntl.F_DUPFD, 20) for descriptor in (their_read, their_write))
    os.close(their_read)
    os.close(their_write)
    return (our_read, our_write), (high[0], high[1])


def _code(key: str) -> dict[str, int]:
    codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "End": 35}
    return {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
