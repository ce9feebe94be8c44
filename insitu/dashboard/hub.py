# SPDX-License-Identifier: Apache-2.0
"""Who looks at what. An update is made and encoded once for all who look at the same view.

A browser gets an update only after it has taken in the one before, and then the newest: policy `latest`. So neither a
slow browser nor twenty of them hold anything back, and what waits for each is one update at most.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from insitu.dashboard.access import Role
from insitu.dashboard.page import encoded, page, signature
from insitu.dashboard.sources import Source
from insitu.dashboard.views import View

T = TypeVar("T")

#: How often pages are brought up to date, where nothing new comes from a run.
TURN_S = 0.5
#: How long one turn is after the other at least: what comes meanwhile is shown at once.
PAUSE_S = 0.03
#: How long the last update may take to reach the browsers.
LAST_S = 2.0
#: How often the store of results is looked at, while somebody looks at results.
READ_S = 1.0
#: For how long somebody who asks for metrics is thought to ask again; Prometheus does so every minute, or more often.
SCRAPED_S = 90.0
#: How long the first answer of a run is waited for.
FIRST_S = 5.0


class Browser(Protocol):
    """One page that somebody has open."""

    choice: dict[str, str]
    ready: bool
    sent: str
    sent_at: float

    def push(self, text: str) -> None: ...


class Hub:
    """Brings pages up to date. All methods belong to the event loop; views are computed in a thread of their own."""

    def __init__(self, runs: Sequence[Source], views: dict[str, View]) -> None:
        self.runs = runs
        self.views = views
        self._browsers: dict[str, set[Browser]] = {name: set() for name in views}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="insitu-views")
        self._closing = False
        self._scraped_at = -SCRAPED_S
        self._read_at = -READ_S
        self._wake = asyncio.Event()

    @property
    def browsers(self) -> int:
        """How many pages are open."""
        return sum(len(each) for each in self._browsers.values())

    def join(self, view: str, browser: Browser) -> None:
        self._browsers[view].add(browser)
        self._wake.set()

    def leave(self, view: str, browser: Browser) -> None:
        self._browsers[view].discard(browser)

    def wake(self) -> None:
        """Something is new: do not wait for the next turn."""
        self._wake.set()

    async def run(self) -> None:
        """Keep all pages up to date, until `close`."""
        while not self._closing:
            self._wake.clear()
            await self.turn()
            await asyncio.sleep(PAUSE_S)
            try:
                await asyncio.wait_for(self._wake.wait(), TURN_S)
            except TimeoutError:
                continue

    async def turn(self) -> None:
        """Bring all pages up to date once."""
        await self.call(self._refresh)
        for name, browsers in self._browsers.items():
            await self._update(name, browsers)

    async def _update(self, name: str, browsers: set[Browser]) -> None:
        """Bring the pages of one view up to date; who has chosen the same gets the same."""
        due_at = time.monotonic() - self.views[name].EVERY_S
        due = [browser for browser in browsers if browser.ready and (self._closing or browser.sent_at <= due_at)]
        texts: dict[frozenset[tuple[str, str]], str] = {}
        for browser in due:
            key = frozenset(browser.choice.items())
            if key not in texts:
                texts[key] = await self.call(partial(self._encoded, self.views[name], dict(browser.choice)))
            if browser.sent != texts[key]:
                browser.push(texts[key])

    def page_of(self, view: View, role: Role) -> str:
        """Return a view's page; to be done by `call`. Results are looked at first: they say which figures it has."""
        for run in self.runs:
            run.refresh(watched=True, reads=view.READS)
        return page(view, list(self.views.values()), self.runs, role)

    async def call(self, work: Callable[[], T]) -> T:
        """Do something that reads runs, in the thread that does all such things."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def snapshots(self) -> list[dict[str, Any]]:
        """Return how the runs do, for somebody who will ask again: for a while they are then asked all the time.

        The first time it waits for the answers, for `FIRST_S` at most.
        """
        self._scraped_at = time.monotonic()
        deadline = self._scraped_at + FIRST_S
        self._wake.set()
        while not all(run.snapshot or not run.live for run in self.runs) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return [run.snapshot for run in self.runs]

    def _refresh(self) -> None:
        watched = self.browsers > 0 or time.monotonic() - self._scraped_at < SCRAPED_S
        reads = any(self.views[name].READS and browsers for name, browsers in self._browsers.items())
        now = time.monotonic()
        if reads and now - self._read_at < READ_S:
            reads = False
        elif reads:
            self._read_at = now
        for run in self.runs:
            run.refresh(watched, reads)

    async def close(self) -> None:
        """Show all who look how it ended, as far as their browsers take it in within `LAST_S`, and end."""
        self._closing = True
        deadline = time.monotonic() + LAST_S
        waiting = {browser for browsers in self._browsers.values() for browser in browsers}
        while waiting and time.monotonic() < deadline:
            ready = {browser for browser in waiting if browser.ready}
            await self.turn()
            waiting -= ready
            await asyncio.sleep(PAUSE_S)
        self._wake.set()
        self._pool.shutdown(wait=True)

    def _encoded(self, view: View, choice: dict[str, str]) -> str:
        return encoded(view.update(self.runs, choice), self.runs, signature(view.parts(self.runs)))
