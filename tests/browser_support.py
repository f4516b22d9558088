"""A page in the system's Chromium without a screen, which tells what it asked for and said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.comparison.pdf import find_browser

LAPTOP, PHONE = (1366, 768), (390, 844)


def require_browser() -> Path:
    """Return the machine's browser, or skip the test."""
    browser = find_browser()
    if browser is None:
        pytest.skip("no Chromium, Chrome or Edge on this machine")
    return browser


@contextmanager
def open_browser() -> Iterator[Any]:
    """Give a browser of playwright's; skip where there is none."""
    path = require_browser()
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(path), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A file opened in a browser.

    Attributes
    ----------
    page : playwright's Page
    asked : list of str
        Addresses that were asked for, but for those that hold their own data.
    said : list of str
        Errors and warnings of the console, and exceptions of the page.
    """

    def __init__(self, browser: Any, html: Path, size: tuple[int, int], dark: bool = False):
        self.asked: list[str] = []
        self.said: list[str] = []
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            offline=False,
        )
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self._ask(request.url))
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(html.as_uri())

    def _ask(self, url: str) -> None:
        if not url.startswith("data:"):
            self.asked.append(url)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.said.append(message.text)

    def close(self) -> None:
        self.context.close()
