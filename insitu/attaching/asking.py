# SPDX-License-Identifier: Apache-2.0
"""Questions to a run that goes on, and their answers. Nothing is sent that was not asked for."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from insitu.config.words import nearest
from insitu.dashboard.pictures import unseen
from insitu.dashboard.viewer import Viewer
from insitu.errors import LocalProtocolError, RunError
from insitu.wire.blocks import Range
from insitu.wire.contact import Contact
from insitu.wire.viewing import Look, News, Sight

#: How long the controller may take to say how the run does.
NEWS_S = 10.0
#: After so long a look is asked for again: a staging node that was to answer may be gone.
AGAIN_S = 5.0
_POLL_S = 0.1


class Asking:
    """One who asks a run, one question after the other. Belongs to one thread.

    All raise `RunError` where the run has ended instead of an answer.
    """

    def __init__(self, contact: Contact) -> None:
        self.run = contact.run
        self.directory = Path(contact.directory)
        self._viewer = Viewer(contact)
        self._number = 0
        self._seen: set[str] = set()

    @property
    def over(self) -> bool:
        """Whether the run has said that it has ended."""
        return self._viewer.over

    def news(self) -> dict[str, Any]:
        """Ask how the run does. Raises `TimeoutError` where the controller does not answer within `NEWS_S`."""
        self._viewer.ask()
        found: list[News] = []

        def take(answer: News | Sight) -> bool:
            if isinstance(answer, News):
                found.append(answer)
            return bool(found)

        deadline = time.monotonic() + NEWS_S
        while not self._heard(take, deadline, "how it does"):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"Run '{self.run}' has not said how it does within {NEWS_S:g} s; is its controller still there?"
                )
        snapshot = found[-1].snapshot
        self._seen.update(str(each["name"]) for each in snapshot["variables"] if each["needed"])
        return snapshot

    def variables(self) -> dict[str, dict[str, Any]]:
        """Ask what the ranks put so far, by name."""
        return {str(each["name"]): each for each in self.news()["variables"]}

    def look(
        self, variable: str, select: tuple[Range, ...], most: int | None, since: int | None, deadline: float
    ) -> list[Sight]:
        """Look at a variable, as `Look` says it, and return all parts; at `deadline` at the latest.

        Raises `TimeoutError` where they do not come by then, and `LocalProtocolError` for a variable that is never seen
        outside its ranks, for it is put by none, or folded by no operator.
        """
        self._require_seen(variable)
        begin, asked_at, parts = time.monotonic(), -AGAIN_S, list[Sight]()

        def take(answer: News | Sight) -> bool:
            if isinstance(answer, Sight) and answer.number == self._number:
                parts.append(answer)
            return bool(parts) and len(parts) == parts[0].parts

        while (now := time.monotonic()) < deadline:
            if now - asked_at >= AGAIN_S:
                self._number += 1
                parts.clear()
                asked_at = now
                self._viewer.look(Look(self._number, variable, select, most, since))
            if self._heard(take, deadline, f"a step of '{variable}'"):
                if since is not None or most == 0 or not unseen(parts):
                    return parts
                asked_at = -AGAIN_S
        waited_s = deadline - begin
        raise TimeoutError(f"Run '{self.run}': no step of '{variable}' came within {max(0.0, waited_s):.3g} s.")

    def close(self) -> None:
        """Let go of the run. May be called twice."""
        self._viewer.close()

    def _require_seen(self, variable: str) -> None:
        """Tell at once of a variable that will never come; before the first step nobody knows."""
        if variable in self._seen:
            return
        known = self.variables()
        if known and variable not in known:
            names = ", ".join(known)
            raise LocalProtocolError(
                f"No rank puts a variable '{variable}'{nearest(variable, known)} (put are {names})."
            )
        if known and not known[variable]["needed"]:
            raise LocalProtocolError(
                f"No operator folds '{variable}', so it does not leave its ranks; add one to the configuration, or "
                "record it."
            )

    def _heard(self, take: Callable[[News | Sight], bool], deadline: float, what: str) -> bool:
        """Take in what is said; return whether that was all. Raises `RunError` where nothing more will be said."""
        wait_s = max(0.0, min(_POLL_S, deadline - time.monotonic()))
        done = any(take(answer) for answer in self._viewer.receive(wait_s))
        if not done and self._viewer.over:
            raise RunError(f"Run '{self.run}' has ended before it said {what}; see {self.directory}.")
        return done
