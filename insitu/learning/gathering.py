# SPDX-License-Identifier: Apache-2.0
"""Puts whole steps together from what the staging nodes send of them. No sockets."""

from collections.abc import Collection, Iterator

import numpy as np

from insitu.learner import Taken
from insitu.model import Array, Block, Step, Variable
from insitu.wire.learning import Lesson
from insitu.wire.messages import Layout, Publish
from insitu.wire.session import blocks_of

#: Where a block comes from: its rank, then its staging node, since a rank's rows may be split over several.
Source = tuple[int, int]


class Gathering:
    """The steps of which every one of `nodes` sends a part; a learner `needs` some variables of each.

    `variables` are those of the first whole step; each step without one of them, or with others, is left out.
    """

    def __init__(self, nodes: Collection[int], needs: Collection[str]) -> None:
        self.variables: dict[str, Variable] = {}
        self.left_out = 0
        self._needs = tuple(needs)
        self._waiting: dict[int, dict[int, Lesson]] = {node: {} for node in nodes}

    def add(self, node: int, lesson: Lesson) -> None:
        """Take in what a node sent. What it sends again takes the place of what came before."""
        self._waiting[node][lesson.sequence] = lesson

    def next(self) -> tuple[int, Taken | None] | None:
        """Return the next step that all nodes have sent: its sequence, and the step where it is whole."""
        # Nodes send in order: what one of them skips before a step that all have sent will not come.
        common = set.intersection(*map(set, self._waiting.values()))
        if not common:
            return None
        sequence = min(common)
        lessons = {node: lessons[sequence] for node, lessons in self._waiting.items()}
        for node in self._waiting:
            self._waiting[node] = {key: each for key, each in self._waiting[node].items() if key > sequence}
        taken = self._gathered(lessons)
        self.left_out += taken is None
        return sequence, taken

    def _gathered(self, lessons: dict[int, Lesson]) -> Taken | None:
        """Put the blocks of one step together, unless it lacks a variable."""
        parts: dict[str, dict[Source, Block]] = {name: {} for name in self._needs}
        for node, lesson in lessons.items():
            for (rank, _), block in zip(lesson.blocks, _blocks(lesson), strict=True):
                if block.variable.name in parts:
                    parts[block.variable.name][rank, node] = block
        if not all(parts.values()):
            return None
        variables = {name: next(iter(blocks.values())).variable for name, blocks in parts.items()}
        self.variables = self.variables or variables
        if variables != self.variables:
            return None
        first = next(iter(lessons.values()))
        step = Step(first.sequence, first.index, first.time)
        return Taken(step, {name: _whole(variables[name], blocks) for name, blocks in parts.items()})


def _blocks(lesson: Lesson) -> Iterator[Block]:
    layout = Layout(0, tuple(spec for _, spec in lesson.blocks))
    yield from blocks_of(Publish(lesson.sequence, lesson.index, lesson.time, 0, lesson.buffers), layout)


def _whole(variable: Variable, blocks: dict[Source, Block]) -> Array:
    """Return a variable of one step; without a copy where one block is all of it."""
    ordered = [blocks[source] for source in sorted(blocks)]
    if variable.shape is None:
        return ordered[0].data if len(ordered) == 1 else np.concatenate([block.data for block in ordered])
    if len(ordered) == 1 and ordered[0].count == variable.shape:
        return ordered[0].data
    whole = np.empty(variable.shape, variable.dtype)
    for block in ordered:
        whole[tuple(slice(low, low + n) for low, n in zip(block.start, block.count, strict=True))] = block.data
    whole.flags.writeable = False
    return whole
