# SPDX-License-Identifier: Apache-2.0
"""A browser without a window: Debian's Chromium, driven by Playwright. Without one of them these tests are skipped."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

#: Nothing that talks to anybody but the page.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
)  # fmt: skip
LIMIT_MS = 40_000
#: Where pictures of the pages are kept to be looked at; by default they go with the test's folder.
PICTURES = os.environ.get("INSITU_SCREENSHOTS")


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Pages:
    """The pages of one dashboard in one browser context; what goes wrong in a page's script is in `errors`.

    `url` has the token, and leads to the view that is shown first.
    """

    def __init__(self, browser: Any, url: str, view: str = "run", **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(LIMIT_MS)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.base, _, opened = url.rpartition("/")
        self.page.goto(f"{self.base}/{opened.replace('run', view, 1)}")
        self._wait()

    def open(self, view: str) -> Any:
        """Load a view and wait until it shows something."""
        self.page.goto(f"{self.base}/{view}")
        self._wait()
        return self.page

    def show(self, view: str) -> Any:
        """Return the page of a view; it is loaded where another one is shown, as loading is what costs."""
        return self.page if self.page.url == f"{self.base}/{view}" else self.open(view)

    def _wait(self) -> None:
        self.page.wait_for_function("document.body.dataset.updates >= 1")

    def column(self, source: str, column: str) -> list[float]:
        """Return what a figure shows: a column of its data."""
        return self.columns(source, column)[0]

    def columns(self, source: str, *columns: str) -> list[list[float]]:
        """Return several columns of a figure's data, of one update."""
        self.page.wait_for_function(
            "([name, columns]) => columns.every((column) => (model(name)?.data[column] || []).length)",
            arg=[source, columns],
        )
        script = "([name, columns]) => columns.map((column) => Array.from(model(name).data[column]))"
        return list(self.page.evaluate(script, [source, columns]))

    def image(self, source: str) -> tuple[list[int], list[float | None]]:
        """Return what a picture shows: its shape and its values, ``None`` for NaN."""
        self.page.wait_for_function("name => (model(name)?.data.image || []).length", arg=source)
        script = "name => { const one = model(name).data.image[0]; return [one.shape, Array.from(one)]; }"
        shape, values = self.page.evaluate(script, source)
        return shape, [None if isinstance(value, float) and value != value else value for value in values]

    def said(self, name: str, pattern: str) -> str:
        """Wait for a text that is like the pattern, and return it."""
        script = "([name, like]) => new RegExp(like).test(document.querySelector(`[data-text='${name}']`).textContent)"
        self.page.wait_for_function(script, arg=[name, pattern])
        return str(self.page.text_content(f"[data-text='{name}']"))

    def table(self, name: str) -> list[list[str]]:
        """Return the rows of a table, as text."""
        script = "rows => rows.map(row => Array.from(row.cells).map(cell => cell.textContent))"
        return list(self.page.eval_on_selector_all(f"[data-table='{name}'] tr", script))

    def until(self, selector: str, text: str) -> None:
        """Wait until an element says something."""
        self.page.wait_for_function(
            "([where, text]) => document.querySelector(where)?.textContent.includes(text)", arg=[selector, text]
        )

    def picture(self, folder: Path, name: str) -> None:
        """Keep a picture of the page, and see that nothing reaches beyond its edge or is cut."""
        place = Path(PICTURES) if PICTURES else folder
        place.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=place / f"{name}.png", full_page=True)
        width = self.page.viewport_size["width"]
        assert self.page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than the screen"
        assert self.page.evaluate(CUT) == [], f"something of {name} is cut"

    def close(self) -> None:
        self.context.close()


#: The elements with text that do not fit, outside of what may be scrolled.
CUT = """() => Array.from(document.querySelectorAll("h1, h2, p, dt, dd, li, a, button, label"))
    .filter((one) => !one.closest(".scroll, .bk-Figure") && one.clientWidth && one.scrollWidth > one.clientWidth + 1)
    .map((one) => one.outerHTML.slice(0, 120))"""
