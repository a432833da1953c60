"""The page in a real browser: a photograph is dropped, the slider moves, the camera runs, and nothing complains."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from serving.conftest import Server, serving
from slimdet.assets import PHOTOGRAPHS

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver's name for an element
DROP = """
const [data, done] = arguments;
const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "tabby.jpg", { type: "image/jpeg" }));
const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
for (const name of ["dragenter", "dragover", "drop"]) {
  document.getElementById("stage").dispatchEvent(new DragEvent(name, options));
}
done();
"""


class Browser:
    """Chromium without a window, over WebDriver's HTTP."""

    def __init__(self, port: int, size: tuple[int, int]) -> None:
        self.root = f"http://127.0.0.1:{port}"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={size[0]},{size[1]}"]
        flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        wanted = {"goog:chromeOptions": {"binary": BROWSER, "args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.root += f"/session/{made['sessionId']}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        headers = {"content-type": "application/json"}
        try:
            with urlopen(Request(self.root + path, data, headers, method=method), timeout=60) as reply:
                return json.load(reply)["value"]
        except HTTPError as error:
            raise AssertionError(error.read().decode()[:500]) from error

    def run(self, script: str, *arguments: Any, wait: bool = False) -> Any:
        return self.ask("POST", f"/execute/{'async' if wait else 'sync'}", {"script": script, "args": arguments})

    def text(self, name: str) -> str:
        return self.run("return document.getElementById(arguments[0]).textContent", name)

    def press(self, name: str, keys: str) -> None:
        found = self.ask("POST", "/element", {"using": "css selector", "value": f"#{name}"})
        self.ask("POST", f"/element/{found[ELEMENT]}/value", {"text": keys})

    def click(self, name: str) -> None:
        found = self.ask("POST", "/element", {"using": "css selector", "value": f"#{name}"})
        self.ask("POST", f"/element/{found[ELEMENT]}/click")

    def until(self, true: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + 20
        while not true():
            assert time.monotonic() < end, (what, self.text("error"), self.complaints())
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"})]

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.ask("GET", "/screenshot")))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not DRIVER or not BROWSER:
        pytest.skip("needs chromium and chromedriver (Debian: chromium-driver)")
    with serving("bundled", "--slo-ms", "20000") as one:
        yield one


@pytest.fixture
def browser(server: Server) -> Iterator[Browser]:
    assert DRIVER
    with subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "successfully on port" in line)
        one = Browser(int(line.rsplit(" ", 1)[1].strip(" .\n")), (420, 1000))
        try:
            one.ask("POST", "/url", {"url": f"http://127.0.0.1:{server.port}/"})
            yield one
            one.ask("DELETE", "")
        finally:
            process.kill()


def test_a_person_tries_the_model(server: Server, browser: Browser, tmp_path: Path) -> None:
    ladder = server.get("/v1/status").json["ladder"]
    browser.until(lambda: "dog, cat" in browser.text("model"), "the state is shown")
    browser.run(DROP, base64.b64encode((PHOTOGRAPHS / "tabby.jpg").read_bytes()).decode(), wait=True)
    browser.until(lambda: browser.text("ap") == f"{100 * ladder[-1]['AP']:.1f}", "the dearest is first")
    label = "return document.getElementById('picture').getAttribute('aria-label')"
    assert browser.run(label) == "Found: cat"
    assert float(browser.text("total")) > 0
    assert browser.text("width") == f"{ladder[-1]['point']['width']:g}"
    assert float(browser.text("macs")) == float(f"{ladder[-1]['macs'] / 1e9:.2g}")

    browser.press("rung", "\ue012")  # the left arrow key
    browser.until(lambda: browser.text("ap") == f"{100 * ladder[-2]['AP']:.1f}", "a cheaper point")
    assert browser.run("return document.getElementById('curve').dataset.rung") == str(len(ladder) - 2)
    assert browser.run("return document.getElementById('now') !== null")

    browser.press("file", str(PHOTOGRAPHS / "horses.jpg"))
    browser.until(lambda: "horse" in browser.run(label), "a file that was chosen")
    browser.click("by-server")
    browser.until(lambda: browser.text("ap") == f"{100 * ladder[-1]['AP']:.1f}", "the server chooses, and has time")
    assert browser.run("return document.getElementById('hand').hidden")

    browser.click("camera")
    browser.until(
        lambda: browser.run("return document.getElementById('picture').width") == 640, "a frame of the camera"
    )
    browser.click("camera")
    assert browser.text("camera") == "Use the camera"
    browser.screenshot(tmp_path / "page.png")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")  # fits a telephone
    assert browser.complaints() == []
