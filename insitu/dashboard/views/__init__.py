# SPDX-License-Identifier: Apache-2.0
"""The views of the dashboard: which plots a page has, and what they show of a run. No browser, no sockets.

A view is two functions. `parts` says what the page has: headings, places for text and tables, figures. `update` says
what stands there now, as data,
given what was chosen on the page: it holds no logic of any view. What is shown is always text, never markup, so a
name that is HTML is shown as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from insitu.dashboard.sources import Source
from insitu.dashboard.tables import Table
from insitu.model import Array

Columns = Mapping[str, Sequence[Any]]


@dataclass(slots=True)
class Part:
    """One piece of a page: a `title`, and below it what `kind` says, under the name `id`.

    ``text`` a sentence, ``cards`` numbers with labels, ``table`` a table, ``drawing`` an SVG that was made here,
    ``links`` addresses of other pages, ``choices`` widgets to choose by, ``controls`` widgets that ask the run for
    something, ``figure`` a Bokeh figure, which `figure` makes, and whose `legend` has labels and colours. `run` is the
    number of the run that it belongs to, or ``None`` for all.
    """

    kind: str
    id: str
    title: str = ""
    run: int | None = None
    figure: Callable[[], Any] | None = None
    about: str = ""
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """Something to be chosen on a page: by a ``select`` among `options`, a ``slider`` from 0, or as a ``number``."""

    name: str
    label: str
    kind: str
    value: str | int
    options: Sequence[str] = ()
    maximum: int = 0


@dataclass(frozen=True, slots=True)
class Control:
    """A widget that asks run `run` for something: a ``button`` for an action, with `inputs` for what it takes; or a
    ``slider``, ``number``, ``checkbox``, ``select`` or ``text`` that sets a parameter to a value.

    `ask` is a question that has to be answered with yes before.
    """

    run: int
    name: str
    kind: str
    label: str
    value: Any = None
    options: Sequence[str] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: float | str = "any"
    about: str = ""
    ask: str = ""
    inputs: "Sequence[Control]" = ()


@dataclass(frozen=True, slots=True)
class Image:
    """A field to be drawn at `place` (x, y, width, height), with axes `labels` and colours from `low` to `high`."""

    values: Array
    place: tuple[float, float, float, float]
    labels: tuple[str, str]
    low: float
    high: float
    palette: str


@dataclass(slots=True)
class Update:
    """What stands on a page now, by the ids of its parts. `sources` are the columns of its figures' data.

    Parts in `hidden` have nothing to show, and are not shown.
    """

    texts: dict[str, str] = field(default_factory=dict)
    cards: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    drawings: dict[str, str] = field(default_factory=dict)
    links: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    sources: dict[str, Columns] = field(default_factory=dict)
    choices: dict[str, list[Choice]] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    controls: dict[str, list[Control]] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)


class View(Protocol):
    """What each module here is."""

    NAME: str
    TITLE: str
    #: How often a page is brought up to date, at most.
    EVERY_S: float
    #: Whether it shows stored results.
    READS: bool

    def parts(self, runs: Sequence[Source]) -> list[Part]: ...
    def update(self, runs: Sequence[Source], choice: Mapping[str, str]) -> Update: ...
