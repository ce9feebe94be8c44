# SPDX-License-Identifier: Apache-2.0
"""Has functions of a window called where its blocks are, and says what came of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from insitu.config.function import Function
from insitu.model import Variable
from insitu.staging import calling
from insitu.staging.datasets import index_of
from insitu.staging.executors import Cluster
from insitu.wire.messages import Held


class Functions:
    """The functions of a run, each with what it returned for its first window."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._first: dict[str, Mapping[str, Variable]] = {}

    def call(
        self, name: str, function: Function, variables: Mapping[str, Variable], window: int, held: Sequence[Held]
    ) -> "Answer":
        """Call a function with the blocks of a window, which `held` stands for; they stay until they are let go of."""
        which = f"Function '{name}', window {window}"
        inputs = {each: function.kept(variables[each]) for each in function.inputs}
        states = [self._cluster.held(each.key) for each in held]
        indices = [self._cluster.fetch(which, index_of, state) for state in states]
        keys = [each.key for each in held]
        called = self._cluster.task(calling.call, function, inputs, indices, keys, self._first.get(name))
        told: calling.Told = self._cluster.fetch(which, calling.told, called)
        is_first = told.picture is None and name not in self._first
        if is_first:
            self._first[name] = told.described
        return Answer(self._cluster, which, called, told, is_first, states)


class Answer:
    """What a function returned for a window; `is_first`: nothing is known of its form in the store."""

    def __init__(
        self, cluster: Cluster, which: str, called: object, told: calling.Told, is_first: bool, states: object
    ) -> None:
        self.told = told
        self.is_first = is_first
        self._cluster = cluster
        self._which = which
        self._called = called
        self._states = states  # what is lazy is made of them, and they are there for as long as they are wanted

    def write(self, path: Path, name: str, row: int) -> None:
        """Have what is too large to come here written."""
        self._cluster.fetch(self._which, calling.write, self._called, path, name, row)
