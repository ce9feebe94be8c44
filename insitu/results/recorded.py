# SPDX-License-Identifier: Apache-2.0
"""Reads a recording: the steps that all staging nodes have written, and of each rank its blocks put together again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.errors import GroupNotFoundError

from insitu.errors import ConfigError
from insitu.model import Array, Block, Step, Variable
from insitu.results.recording import FORMAT, group_of

CURE = "record one: run the simulation with an entry {to: record} under outputs"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is known of a step: `elapsed_s` seconds after the first one it came to the staging nodes."""

    step: Step
    elapsed_s: float


class Recording:
    """The recording at `path`.

    `steps` are those that are whole on all nodes. `left_out` counts the others, the last ones of a recording that was
    cut short. `ranks` is how many had published, `variables` what. Raises `ConfigError` where there is no recording, or
    no whole step in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._nodes = [*_nodes(path)]
        whole = [int(_number(node, "steps")) for node in self._nodes]
        self.left_out = max(whole) - min(whole)
        self.ranks = int(_number(self._nodes[0], "ranks"))
        self.steps = _steps(self._nodes, min(whole))
        if not self.steps:
            raise ConfigError(f"{path}: no step is whole on all {len(whole)} staging nodes; {CURE}")
        self.variables: dict[str, Variable] = {}
        for node in self._nodes:
            for _, group in sorted(node.groups(), key=_name):
                variable = _variable(group)
                self.variables.setdefault(variable.name, variable)

    def blocks_of(self, rank: int) -> "RankBlocks":
        """Return what one rank published."""
        return RankBlocks(self._nodes, rank)


class RankBlocks:
    """The blocks of one rank. Keeps one chunk of each array, so steps are best asked for in their order."""

    def __init__(self, nodes: list[zarr.Group], rank: int) -> None:
        #: Of each variable and step its parts, in the order of the nodes, which is that of their rows.
        self._parts: dict[str, dict[int, list[tuple[_Rows, int]]]] = {}
        for node in nodes:
            for _, group in sorted(node.groups(), key=_name):
                variable = _variable(group)
                parts = self._parts.setdefault(variable.name, {})
                for _, one in group.groups():
                    if one.attrs["rank"] == rank:
                        rows = _Rows(variable, one)
                        for row, sequence in enumerate(rows.sequences):
                            parts.setdefault(sequence, []).append((rows, row))

    def at(self, sequence: int) -> Iterator[Block]:
        """Yield the blocks of a step, put together where several nodes had parts of them."""
        for parts in self._parts.values():
            blocks = [rows.block(row) for rows, row in parts.get(sequence, ())]
            if not blocks:
                continue
            first = blocks[0]
            if len(blocks) > 1 and first.variable.ndim:
                yield Block(first.variable, first.start, np.concatenate([block.data for block in blocks]))
            else:
                yield first


class _Rows:
    def __init__(self, variable: Variable, group: zarr.Group) -> None:
        index = _values(group, "index")
        self.sequences: list[int] = index[:, 0].tolist()
        self._variable = variable
        self._count = index[:, 1 : 1 + variable.ndim].tolist()
        self._start = index[:, 1 + variable.ndim :].tolist()
        array = group["data"]
        assert isinstance(array, zarr.Array)
        self._data = array
        self._at = -1
        self._chunk: Array = np.empty(0)

    def block(self, row: int) -> Block:
        per_chunk = self._data.chunks[0]
        if row // per_chunk != self._at:
            self._at = row // per_chunk
            low = self._at * per_chunk
            self._chunk = np.asarray(self._data[low : low + per_chunk])
        count = self._count[row]
        data = self._chunk[row % per_chunk][tuple(slice(0, length) for length in count)]
        return Block(self._variable, tuple(self._start[row]), np.asarray(data))


def _nodes(path: Path) -> Iterator[zarr.Group]:
    """Open the groups of all nodes that were to write."""
    try:
        root = zarr.open_group(path, mode="r")
    except (FileNotFoundError, GroupNotFoundError):
        raise ConfigError(f"{path}: there is no recording; {CURE}") from None
    if any(root.attrs.get(key) != value for key, value in FORMAT.items()):
        raise ConfigError(f"{path}: this is no recording that this version of insitu can read; {CURE}")
    for number in range(int(_number(root, "nodes"))):
        node = root.get(group_of(number))
        if not isinstance(node, zarr.Group):
            raise ConfigError(f"{path}: staging node {number} has recorded nothing; {CURE}")
        yield node


def _steps(nodes: list[zarr.Group], whole: int) -> list[Recorded]:
    """Join what the nodes know of their steps: one that was dropped may not have come to all of them.

    One that came to none has no index; it gets the next one, for which indices that only go forward leave room.
    """
    index, time, elapsed = (
        np.stack([_values(node, name)[:whole] for node in nodes]) for name in ("index", "time", "elapsed")
    )
    steps: list[Recorded] = []
    for sequence in range(whole):
        knows = int(index[:, sequence].argmax())
        step = Step(sequence, int(index[knows, sequence]), float(time[knows, sequence]))
        if step.index < 0:
            before = steps[-1].step if steps else step
            step = Step(sequence, before.index + 1, before.time)
        steps.append(Recorded(step, float(elapsed[:, sequence].max())))
    return steps


def _name(named: tuple[str, zarr.Group]) -> str:
    return named[0]


def _variable(group: zarr.Group) -> Variable:
    about: dict[str, Any] = dict(group.attrs)
    shape = about["shape"]
    return Variable(
        about["name"],
        np.dtype(about["dtype"]),
        None if shape is None else tuple(shape),
        tuple(about["dims"]),
        about["units"],
        about["long_name"],
        tuple(about["row"]),
    )


def _number(group: zarr.Group, name: str) -> Any:
    return group.attrs[name]


def _values(group: zarr.Group, name: str) -> Array:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[:])
