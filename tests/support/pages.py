"""Reads the page of a run as a person does: titles, figures and tables, and what a browser makes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_BROWSER_SECONDS = 60
_MEASURE = """<!DOCTYPE html><title>measure</title><pre id="found"></pre><script>
const widths = WIDTHS, found = {};
let left = widths.length;
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 900px; border: 0`;
  frame.onload = () => {
    const page = frame.contentDocument.documentElement;
    found[width] = {overflow: page.scrollWidth - page.clientWidth, text: page.innerText};
    if (--left === 0) {
      document.getElementById("found").textContent = JSON.stringify(found);
      console.log("measured");
    }
  };
  frame.src = "/page.html";
  document.body.append(frame);
}
</script>"""


class Page(HTMLParser):
    """A page: it must close what it opens.

    Attributes:
        figures: Values by label, of the definition lists; of several exports the first.
        rows: The cells of all rows of tables.
        text: All visible text.
        tags: The names of its elements.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.figures: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.text = ""
        self.tags: set[str] = set()
        self._open: list[str] = []
        self._cell: str | None = None
        self._label = ""
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "meta":
            return
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th", "dt", "dd"):
            self._cell = ""

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if self._cell is not None and tag in ("td", "th"):
            self.rows[-1].append(self._cell)
        elif self._cell is not None and tag == "dt":
            self._label = self._cell
        elif self._cell is not None and tag == "dd":
            self.figures.setdefault(self._label, self._cell)
        if tag in ("td", "th", "dt", "dd"):
            self._cell = None

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        if "script" in self._open or "style" in self._open:
            return
        self.text += data
        if self._cell is not None:
            self._cell += data

    def row(self, name: str) -> list[str]:
        """The cells after the name in the one row that begins with it."""
        (row,) = [row for row in self.rows if row and row[0] == name]
        return row[1:]

    @property
    def facts(self) -> dict[str, Any]:
        """The JSON that later runs read."""
        (block,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', self.html)
        facts: dict[str, Any] = json.loads(block)
        return facts


@dataclass
class Seen:
    """A page in a browser.

    Attributes:
        overflow: Pixels by which the content is wider than its window, by width of the window.
        texts: Its text, by width of the window.
        console: Lines of the browser's console.
        requested: Paths that the browser asked for, without its own icon.
    """

    overflow: dict[int, int] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    console: list[str] = field(default_factory=list)
    requested: set[str] = field(default_factory=set)


def in_browser(html: str, folder: Path, *, widths: tuple[int, ...]) -> Seen:
    """Open a page in headless Chromium at several widths."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.fail("chromium is missing: `make test` installs it")
    seen = Seen()
    pages = {"/": _MEASURE.replace("WIDTHS", json.dumps(widths)), "/page.html": html}
    with _served(pages, seen.requested) as url:
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr")
        done = subprocess.run(
            [
                browser,
                *options,
                f"--user-data-dir={folder / 'browser'}",
                "--virtual-time-budget=5000",
                "--dump-dom",
                url,
            ],
            capture_output=True,
            text=True,
            timeout=_BROWSER_SECONDS,
            check=True,
        )
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    for width, measured in json.loads(found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")).items():
        seen.overflow[int(width)], seen.texts[int(width)] = measured["overflow"], measured["text"]
    seen.console = [line.split("] ", 1)[1] for line in done.stderr.splitlines() if ":CONSOLE" in line]
    seen.requested -= {"/favicon.ico"}
    return seen


@contextmanager
def _served(pages: dict[str, str], requested: set[str]) -> Iterator[str]:
    """Serve pages on this machine."""

    class Handler(BaseHTTPRequestHandler):
        log_message: Callable[..., None] = lambda *_: None

        def do_GET(self) -> None:
            requested.add(self.path)
            content = pages.get(self.path, "").encode()
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
