"""A headless Chromium for tests of pages, driven over the DevTools protocol through a pipe: no driver, no port.

Chromium reads commands from file descriptor 3 and writes answers and events to 4, each a JSON text that ends in a zero
byte (--remote-debugging-pipe).
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.patience import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # continuous integration runs as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--lang=en-GB",
)


class PageError(AssertionError):
    """The page did not do what was requested; the message says why."""


@dataclass(slots=True)
class Page:
    """One tab. `errors` collects script exceptions and requests blocked by the security policy or the network."""

    _commands: int
    _responses: int
    _session: str = ""
    _last: int = 0
    _rest: bytes = b""
    errors: list[str] = field(default_factory=list)

    def send(self, method: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Sends one protocol command; returns its result."""
        self._last += 1
        command = {"id": self._last, "method": method, "params": dict(parameters or {})}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while True:
            message = self._next(end)
            if message.get("id") == self._last:
                if "error" in message:
                    raise PageError(f"{method}: {message['error']['message']}")
                result: dict[str, Any] = message["result"]
                return result
            self._heard(message)

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._responses], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self._responses, 1 << 20) if ready else b""
            if not chunk:
                raise PageError("Chromium does not answer")
            self._rest += chunk
        text, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        return message

    def _heard(self, event: Mapping[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(f"{parameters['entry']['text']} ({parameters['entry'].get('url', '')})")

    # --- user actions ---

    def open(self, address: str) -> None:
        """Navigates to the address and waits until the page is loaded."""
        failed = self.send("Page.navigate", {"url": address}).get("errorText")
        if failed:
            raise PageError(f"{address}: {failed}")
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:
        """Evaluates an expression, awaits it, and returns its JSON value."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        response = self.send("Runtime.evaluate", asked)
        if "exceptionDetails" in response:
            raise PageError(f"{expression}: {response['exceptionDetails']['exception'].get('description')}")
        return response["result"].get("value")

    def wait_for(self, expression: str, *, within: float = PATIENCE) -> Any:
        """Waits until the expression is truthy and returns it (True for an element). Survives navigation."""
        plain = f"(async (value) => (value instanceof Node ? true : value))({expression})"
        end = time.monotonic() + within
        while True:
            try:
                if value := self.evaluate(plain):
                    return value
            except PageError as error:
                if "context" not in str(error):  # the page it ran in has just been left
                    raise
            if time.monotonic() > end:
                raise PageError(f"not within {within} s: {expression}\n{self.text()}\n{self.errors}")
            time.sleep(0.1)

    def text(self) -> str:
        """The visible text."""
        return str(self.evaluate("document.body.innerText"))

    def fill(self, selector: str, text: str) -> None:
        """Types into a field."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self.send("Input.insertText", {"text": text})

    def press(self, key: str) -> None:
        """Presses one key."""
        code = {"Enter": 13, "Tab": 9, " ": 32}[key]
        parameters = {"key": key, "windowsVirtualKeyCode": code, "text": {"Enter": "\r", " ": " "}.get(key, "")}
        self.send("Input.dispatchKeyEvent", {"type": "keyDown", **parameters})
        self.send("Input.dispatchKeyEvent", {"type": "keyUp", **parameters})

    def choose_files(self, selector: str, paths: Sequence[Path]) -> None:
        """Sets the files of a file field, as its dialog would."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
        self.send("DOM.setFileInputFiles", {"nodeId": node, "files": [str(path.resolve()) for path in paths]})

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Sets the window size in CSS pixels, and light or dark mode."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", {"features": [feature]})

    def screenshot(self, path: Path) -> None:
        """Saves the whole page as a PNG."""
        picture = self.send("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def browser(profile: Path, flags: Sequence[str] = ()) -> Iterator[Page]:
    """A Chromium with one empty tab, and its profile in the folder `profile`. It ends with the block."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise PageError("the tests of pages need Chromium: `make .local/chromium` installs it")
    commands_out, commands = os.pipe()
    responses, answers_in = os.pipe()

    def descriptors() -> None:
        # Above 4 first: one of the two may itself be 3 or 4.
        above = [fcntl.fcntl(one, fcntl.F_DUPFD, 5) for one in (commands_out, answers_in)]
        os.dup2(above[0], 3)
        os.dup2(above[1], 4)

    with (profile.parent / f"{profile.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", *flags, "about:blank"],
            preexec_fn=descriptors,  # noqa: PLW1509 - no threads are running yet that could hold a lock
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(commands_out)
    os.close(answers_in)
    page = Page(commands, responses)
    try:
        tabs = page.send("Target.getTargets")["targetInfos"]
        tab = next(target["targetId"] for target in tabs if target["type"] == "page")
        page._session = page.send("Target.attachToTarget", {"targetId": tab, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            page.send(f"{domain}.enable")
        yield page
    finally:
        os.close(commands)  # Chromium ends when its pipe does
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(responses)
