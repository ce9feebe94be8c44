# SPDX-License-Identifier: Apache-2.0
"""One run to be shown: one that goes on, or one that has ended. To the views they are the same."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from insitu.dashboard.derive import RATE_S
from insitu.dashboard.helm import Helm
from insitu.dashboard.journal import LogTail
from insitu.dashboard.pictures import Looks
from insitu.dashboard.stored import Store
from insitu.dashboard.thresholds import Thresholds, thresholds
from insitu.dashboard.viewer import Viewer
from insitu.errors import ConfigError, InsituError
from insitu.wire.contact import Contact
from insitu.wire.viewing import Sight

#: How often a run is asked how it does while anybody looks.
ASK_S = 0.5
#: After so long without an answer the page says that the connection is lost.
SILENT_S = 5.0
#: How long one wait for an answer lasts: how soon a new look is noticed.
TURN_S = 0.02


class Source:
    """The run in `directory`: its last snapshot, its results and its log. Read by one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.snapshot: dict[str, Any] = {}
        self.store = Store(directory / "results.zarr")
        self.log = LogTail(directory / "log.jsonl")
        self.actions = LogTail(directory / "actions.jsonl")
        #: What steers it; a run that has ended has none.
        self.helm: Helm | None = None
        self.warning = ""
        #: Pictures of its variables; a run that has ended has none.
        self.looks = Looks()
        #: What was told of variables and operators some seconds ago; nothing for a run that has ended.
        self.earlier: dict[str, Any] = {}
        #: What it is called on the pages, where the name of the run does not tell it from another one.
        self.label = ""

    @property
    def name(self) -> str:
        return self.label or str(self.snapshot.get("run") or self.directory.resolve().name)

    @cached_property
    def thresholds(self) -> Thresholds:
        """What its rules compare results with."""
        return thresholds(self.directory)

    @property
    def live(self) -> bool:
        """Whether the run goes on, as far as is known."""
        return False

    def refresh(self, watched: bool, reads: bool) -> None:
        """Take in what is new on the disk; `watched` says whether anybody looks, and `reads` whether at results."""
        if reads:
            self.store.refresh()
        if watched:
            self.log.refresh()
            self.actions.refresh()

    def close(self) -> None:
        """Let go of everything. May be called twice."""


def tell_apart(runs: Sequence[Source]) -> None:
    """Give runs of the same name the names of their directories."""
    names = [run.name for run in runs]
    for run, name in zip(runs, names, strict=True):
        if names.count(name) > 1:
            run.label = str(run.directory)


class Finished(Source):
    """A run that has ended, from what it left behind. Raises `ConfigError` where there is none."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        if not (directory / "config.yaml").is_file():
            raise ConfigError(f"there is no run in {directory}; give the directory of a run, such as runs/gray-scott")
        self.snapshot, self.warning = last_snapshot(directory)


def last_snapshot(directory: Path) -> tuple[dict[str, Any], str]:
    """Return what a run left as its last snapshot, and a sentence where it left none."""
    path = directory / "snapshot.json"
    try:
        snapshot = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}, (
            f"{directory} has no {path.name}: this run did not end by itself. Its results and its log are shown as far "
            "as they were written."
        )
    return (snapshot, "") if isinstance(snapshot, dict) else ({}, f"{path} is no snapshot.")


class Live(Source):
    """A run that goes on. A thread of its own asks the controller, while anybody looks and never more than once."""

    def __init__(self, contact_path: Path, news: Callable[[], None] = lambda: None) -> None:
        contact = Contact.read(contact_path)
        super().__init__(Path(contact.directory))
        self._contact = contact
        self._news = news
        self.helm = Helm(contact, news)
        self._watched = threading.Event()
        self._closing = threading.Event()
        self._over = False
        self._asking = False
        self._flows: deque[dict[str, Any]] = deque()
        self._asked_at = -ASK_S
        self._heard_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="insitu-viewer", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self.label or self._contact.run

    @property
    def live(self) -> bool:
        return not self._over

    def refresh(self, watched: bool, reads: bool) -> None:
        super().refresh(watched, reads)
        if watched and not self._watched.is_set():
            self._heard_at = time.monotonic()
        (self._watched.set if watched else self._watched.clear)()
        silent_s = time.monotonic() - self._heard_at
        if self.live and watched and silent_s > SILENT_S:
            self.warning = f"The controller has not answered for {silent_s:.0f} s; what is shown is as old as that."
        elif self.live:
            self.warning = ""

    def end(self) -> None:
        """The run has ended: show what it left behind."""
        if not self._over:
            self._over = True
            snapshot, self.warning = last_snapshot(self.directory)
            self.earlier = {}
            self.snapshot = snapshot or {**self.snapshot, "phase": "ended", "status": "unknown"}
            self._news()

    def close(self) -> None:
        if self.helm is not None:
            self.helm.close()
        self._closing.set()
        self._watched.set()
        self._thread.join()

    def _run(self) -> None:
        viewer: Viewer | None = None
        try:
            while not (self._closing.is_set() or self._over):
                self._watched.wait()
                if self._closing.is_set():
                    return
                viewer = viewer or Viewer(self._contact)
                self._turn(viewer)
        except InsituError as error:
            self.warning = str(error)
            self._news()
        finally:
            if viewer is not None:
                viewer.close()

    def _turn(self, viewer: Viewer) -> None:
        """Ask what is to be asked now, and take in what is answered."""
        now = time.monotonic()
        if now - self._asked_at >= (SILENT_S if self._asking else ASK_S):
            viewer.ask()
            self._asked_at, self._asking = now, True
        if (look := self.looks.next(now)) is not None:
            viewer.look(look)
        for answer in viewer.receive(TURN_S):
            self._heard_at = time.monotonic()
            if isinstance(answer, Sight):
                if self.looks.take(answer):
                    self._news()
            elif not self._over:
                self._asking = False
                self._remember(answer.snapshot)
                self._news()
        if viewer.over:
            self.end()

    def _remember(self, snapshot: dict[str, Any]) -> None:
        """Take in a snapshot, and keep of those before what rates are told by."""
        self._flows.append({name: snapshot.get(name) for name in ("duration_s", "variables", "operators")})
        while len(self._flows) > 1 and self._flows[1]["duration_s"] <= snapshot["duration_s"] - RATE_S:
            self._flows.popleft()
        self.earlier = self._flows[0] if len(self._flows) > 1 else {}
        self.snapshot = snapshot
