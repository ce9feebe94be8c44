# SPDX-License-Identifier: Apache-2.0
"""One trainer of several, while the others come and go: what it asks for, writes, and never loses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analytics.nn.together import Together
from analytics.nn.versions import newest
from analytics.train import Train
from insitu.learner import Row, Taken, Team, Workspace, turn
from insitu.model import Step, Variable
from tests.waiting import wait_until

X = Variable("x", np.dtype("f8"), (8, 3), ("member", "number"))
KEYS: dict[str, Any] = {
    "inputs": "x", "model": {"kind": "mlp", "hidden": [4]}, "batch": 8, "report": 1, "validation": {"samples": 8},
    "buffer": {"kind": "firo", "capacity": "8 KiB", "threshold": 8}, "parallel": {"trainers": 2, "timeout": 0.2},
}  # fmt: skip
#: Of the first steps those that trainer 1 is given.
MINE = [sequence for sequence in range(40) if turn(sequence, 2) == 1]


class Place:
    """A run's directory, and what trainer 1 has asked and told."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[int, tuple[int, ...]]] = []
        self.told: list[str] = []
        ask = lambda generation, missing: self.asked.append((generation, missing))  # noqa: E731
        self.workspace = Workspace("net", folder, "", self.told.append, process=1, join=ask)
        learning = Train.model_validate(KEYS).begin({"x": X}, self.workspace)
        assert isinstance(learning, Together)
        self.learning = learning

    def feed(self, steps: list[int]) -> None:
        for sequence in steps:
            x = np.random.default_rng(sequence).normal(size=(8, 3))
            assert self.learning.take(Taken(Step(sequence, sequence, 0.0), {"x": x}))

    def rows(self) -> list[Row]:
        while self.learning.work():
            """Until it waits for more."""
        return self.learning.rows()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_it_learns_with_whom_it_is_told_and_loses_nothing_when_they_change(place: Place) -> None:
    place.feed(MINE[:4])
    assert place.rows() == []
    assert set(place.asked) == {(0, ())}  # more than once, where nobody answers in time
    place.learning.meet(Team(1, (1,), "here"))
    rows = place.rows()
    assert [int(row.values["batches"]) for row in rows] == [1, 2, 3]
    assert sum(row.steps for row in rows) == 4
    assert rows[0].values["samples"] == 32

    place.learning.meet(Team(2, (0, 1), "here"))
    place.feed(MINE[4:6])
    [row] = place.rows()  # the last batch of the old team; then it waits for the other
    assert (row.values["batches"], row.steps) == (4, 2)
    wait_until(lambda: not place.rows() and (2, (0,)) in place.asked, 60.0, "the other to be missed")
    assert place.told[:1] == [
        "trainer 1 of 2 waited 0.2 s at the start for trainer 0, which is not there any more, or stalls"
    ]

    place.learning.meet(Team(3, (1,), "here"))
    place.learning.end()
    rows = place.rows()
    assert place.learning.finished
    assert rows[-1].values["batches"] > 4
    place.learning.close()
    counters = place.learning.counters()
    assert (counters["samples"], counters["teams"]) == (48, 3)
    assert newest(place.workspace.models, "net") == 1
    assert not list((place.workspace.directory / "checkpoints").iterdir())


def test_it_writes_nothing_where_the_others_have_ended_their_work(place: Place) -> None:
    place.feed(MINE[:4])
    place.learning.end()
    assert not place.learning.finished
    place.learning.meet(Team(1, (), "here"))
    assert place.rows() == []
    assert place.learning.finished
    place.learning.close()
    assert newest(place.workspace.models, "net") is None
