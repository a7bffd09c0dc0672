"""A headless Chromium under the control of a test, over the pipe of its DevTools: no driver and no library is needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60


def find_browser():
    """Return the path of a Chromium, None where none is installed."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Page:
    """One page: messages to and from it are JSON that ends in a zero byte."""

    def __init__(self, send, receive):
        self._send, self._receive = send, receive
        self._number, self._session, self._buffer = 0, None, b""
        self.console, self.requests = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Call a method of the protocol and return its result; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._keep(answer)

    def _next(self):
        while b"\0" not in self._buffer:
            assert select.select([self._receive], [], [], SECONDS)[0], "the browser does not answer"
            part = os.read(self._receive, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _keep(self, event):
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.console.append(parameters["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.console.append(parameters["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.console.append(str(parameters["args"]))

    def open(self, file, width, height=900, dark=False):
        """Load a file in a window of a size in CSS pixels and wait until it is complete."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=file.resolve().as_uri())
        deadline = time.monotonic() + SECONDS
        while not self.run(
            f"document.readyState === 'complete' && location.href === {json.dumps(file.resolve().as_uri())}"
        ):
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.05)

    def run(self, script):
        """Return the value of JavaScript in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def mouse(self, kind, x, y, **more):
        """Send an event of the mouse at a place in the window."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def key(self, key, code):
        """Press and release a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def screenshot(self, file):
        """Write what the window looks like as PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def open_browser(executable, folder):
    """Start a browser with a profile of its own in a folder, and give a page of it."""
    to_browser, send = os.pipe()
    receive, from_browser = os.pipe()
    arguments = ["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu"]
    arguments += ["--disable-dev-shm-usage", f"--user-data-dir={folder}"]
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox does not run as root

    def take_pipes():  # the browser reads from 3 and writes to 4; the first two copies keep these numbers from clashing
        read, write = os.dup(to_browser), os.dup(from_browser)
        os.dup2(read, 3)
        os.dup2(write, 4)

    process = subprocess.Popen(
        [executable, *arguments], preexec_fn=take_pipes, close_fds=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(send, receive)
    finally:
        process.terminate()
        process.wait(SECONDS)
        os.close(send)
        os.close(receive)
