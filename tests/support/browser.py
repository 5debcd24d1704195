"""A headless Chromium or Chrome, driven over a pair of pipes by its DevTools protocol (--remote-debugging-pipe)."""

import base64
import contextlib
import json
import os
import shutil
import signal
from functools import cache

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FIRST_FREE = 10  # handles from here on: the browser's own are 3 and 4


@cache
def program():
    """The path of a browser on this machine, or None; it is None on Windows, whose pipes are others."""
    return next(filter(None, map(shutil.which, NAMES)), None) if os.name == "posix" else None


class Browser:
    """One window, from `start` to `close`; `errors` lists what its pages threw and logged as errors, and what they asked the
    network for."""

    def __init__(self, profile):
        self.profile, self.errors, self.sent = profile, [], 0

    def start(self):
        """Start the program; EOFError or BrokenPipeError where it ends at once."""
        (theirs_in, ours_out), (ours_in, theirs_out) = ([self._moved(handle) for handle in os.pipe()] for _ in range(2))
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
                     f"--user-data-dir={self.profile}", "--remote-debugging-pipe", "about:blank"]  # fmt: skip
        null = [(os.POSIX_SPAWN_OPEN, i, os.devnull, os.O_RDWR, 0) for i in range(3)]
        pipes = [(os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4)]
        self.pid = os.posix_spawn(program(), [program(), *arguments], os.environ, file_actions=null + pipes)
        os.close(theirs_in)
        os.close(theirs_out)
        self.to, self.back = os.fdopen(ours_out, "wb", 0), os.fdopen(ours_in, "rb")
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def close(self):
        """End the program."""
        with contextlib.suppress(OSError, EOFError):
            self.call("Browser.close")
        self.to.close()
        self.back.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)

    @staticmethod
    def _moved(handle):
        import fcntl  # not on Windows

        moved = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE)
        os.close(handle)
        return moved

    def call(self, method, **parameters):
        """Call a method of the protocol, and return its result."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": parameters}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != self.sent:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _message(self):
        text = bytearray()
        while (byte := self.back.read(1)) != b"\0":
            if not byte:
                raise EOFError("the browser has gone")
            text += byte
        return json.loads(text)

    def _note(self, event):
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(parameters["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith("file:"):
            self.errors.append(f"asks for {parameters['request']['url']}")
        elif method == "Page.loadEventFired":
            self.loaded = True

    def open(self, path, width=1200, height=900, phone=False, scheme="light"):
        """Show a file in a window of this size, and wait until it is there."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1,
                  mobile=phone)  # fmt: skip
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.errors, self.loaded = [], False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            self._note(self._message())

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page, a promise awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", expression))
        return answer["result"].get("value")

    def mouse(self, kind, x, y):
        """kind is "mouseMoved", "mousePressed" or "mouseReleased" at a place of the window."""
        button = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def touch(self, kind, *points):
        """kind is "touchStart", "touchMove" or "touchEnd" at places of the window."""
        self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y} for x, y in points])

    def key(self, name):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name)

    def picture(self, path):
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
