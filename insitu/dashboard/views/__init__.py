# SPDX-License-Identifier: Apache-2.0
"""The views of the dashboard: which plots a page has, and what they show of a run. No browser, no sockets.

A view is two functions. `parts` says what the page has: headings, places for text and tables, figures. `update` says
what stands there now, as data: the page holds no logic of any view. What is shown is always text, never markup, so a
name that is HTML is shown as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from insitu.dashboard.sources import Source
from insitu.dashboard.tables import Table

Columns = Mapping[str, Sequence[Any]]


@dataclass(slots=True)
class Part:
    """One piece of a page: a `title`, and below it what `kind` says, under the name `id`.

    ``text`` a sentence, ``cards`` numbers with labels, ``table`` a table, ``flow`` boxes with arrows between them,
    ``figure`` a Bokeh figure, whose `legend` has labels and colours. `run` is the number of the run that it belongs to,
    or ``None`` for all.
    """

    kind: str
    id: str
    title: str = ""
    run: int | None = None
    figure: Any = None
    about: str = ""
    legend: Sequence[tuple[str, str]] = ()


@dataclass(slots=True)
class Update:
    """What stands on a page now, by the ids of its parts. `sources` are the columns of its figures' data."""

    texts: dict[str, str] = field(default_factory=dict)
    cards: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    flows: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    sources: dict[str, Columns] = field(default_factory=dict)


class View(Protocol):
    """What each module here is."""

    NAME: str
    TITLE: str
    #: How often a page is brought up to date, at most.
    EVERY_S: float

    def parts(self, runs: Sequence[Source]) -> list[Part]: ...
    def update(self, runs: Sequence[Source]) -> Update: ...
