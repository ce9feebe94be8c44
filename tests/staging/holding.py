# SPDX-License-Identifier: Apache-2.0
"""A staging node that receives nothing and holds what can be computed, and operators that misbehave.

Node and test meet in the contact's directory: ``node-0.json`` says what the node sees, ``closed-0`` that it was closed.
"""

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from insitu.model import Array, Step
from insitu.operator import Batch, Operator, State
from insitu.staging.folder import Holder
from insitu.staging.merging import Part, Place, Recipe
from insitu.wire.contact import Contact
from tests.results.means import Means, field
from tests.waiting import wait_until

SHAPE = (24, 10)
WINDOWS = 3
#: Three ranks' blocks, the middle one on both nodes.
PLACES: list[list[Place]] = [
    [((0, 0), (8, 10)), ((8, 0), (4, 10))],
    [((12, 0), (4, 10)), ((16, 0), (8, 6)), ((16, 6), (8, 4))],
]


class Known(NamedTuple):
    """What a controller hears of held states."""

    key: str
    places: tuple[Place, ...]


def steps_of(window: int) -> Array:
    """The four steps of a window."""
    return np.random.default_rng(window).normal(size=(4, *SHAPE))


def parts_of(operator: Operator, window: int, number: int) -> list[Part]:
    """The parts of a window that node `number` has."""
    states: dict[Place, State] = {}
    for start, count in PLACES[number]:
        cells = tuple(slice(low, low + n) for low, n in zip(start, count, strict=True))
        place = (start, count) if operator.keeps_cells else ((), ())
        arrays = [step[cells].copy() for step in steps_of(window)]
        batch = Batch([Step(k, k, 0.0) for k in range(4)], field(SHAPE), {"u": start}, {"u": arrays})
        states[place] = operator.update(states.get(place, operator.init()), batch)
    return [(*place, state) for place, state in states.items()]


def held_by(number: int, name: str, recipe: Recipe, window: int) -> Known:
    """What the controller would hear of the states of a window at a node."""
    places = tuple(PLACES[number]) if recipe.cells else (((), ()),)
    return Known(f"{number}-{name}-{window}", places)


class HoldingNode:
    """Holds the states of all windows of all operators, then says in its file how much is held and what it sees."""

    def __init__(
        self, contact: Contact, number: int, operators: Mapping[str, Operator], memory_bytes: int, holder: Holder
    ) -> None:
        self._file = Path(contact.directory) / f"node-{number}.json"
        self._number, self._operators, self._holder = number, operators, holder
        self._memory_bytes = memory_bytes
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._file.with_name(f"closed-{self._number}").touch()

    def _run(self) -> None:
        for name, operator in self._operators.items():
            for window in range(WINDOWS):
                self._holder.hold(f"{self._number}-{name}-{window}", parts_of(operator, window, self._number), 1000)
        while not self._closing.wait(0.01):
            self._say()

    def _say(self) -> None:
        seen = {
            "pid": os.getpid(),
            "held_bytes": self._holder.held_bytes(),
            "memory_bytes": self._memory_bytes,
            "threads": os.environ.get("OMP_NUM_THREADS"),
        }
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(seen))
        fresh.rename(self._file)


def seen_by(directory: Path, number: int) -> dict[str, Any]:
    """Wait for a node to have held everything; return what it sees now."""
    file = directory / f"node-{number}.json"
    wait_until(file.is_file, 30.0, f"node {number}")
    return dict(json.loads(file.read_text()))


def refuse(contact: Contact, number: int, *_: object) -> HoldingNode:
    """Fail to start."""
    raise OSError(f"no room for node {number} of {contact.run}")


class Raising(Means):
    """Cannot read its own states."""

    def finalize(self, state: State) -> dict[str, Array]:
        raise ZeroDivisionError("nothing to divide by")


class Gated(Means):
    """Begins to read a state, says so by a file that ends in its process id, and goes on once the gate is open."""

    gate: str

    def finalize(self, state: State) -> dict[str, Array]:
        Path(f"{self.gate}-{os.getpid()}").touch()
        wait_until(Path(self.gate).exists, 60.0)
        return super().finalize(state)


class Stuck:
    """A staging node that does not come up before the file ``go`` is there."""

    def __init__(
        self, contact: Contact, number: int, operators: Mapping[str, Operator], memory_bytes: int, holder: Holder
    ) -> None:
        self._directory = Path(contact.directory)
        (self._directory / f"came-{number}").touch()
        wait_until((self._directory / "go").exists, 30.0, "the word to go on")
        (self._directory / f"up-{number}").touch()

    def close(self) -> None:
        """There is nothing to end."""
