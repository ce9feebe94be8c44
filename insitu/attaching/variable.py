# SPDX-License-Identifier: Apache-2.0
"""A variable of a run that goes on, as a sequence of its retained steps."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import xarray as xr

from insitu.attaching.exact import Exact, Select, checked
from insitu.errors import InsituError, LocalProtocolError
from insitu.text import count

#: How long a step is waited for: a simulation may compute for a while between two.
STEP_S = 60.0
#: How long nodes may take to say or send what they have: they do between two steps of theirs.
SAY_S = 20.0


@dataclass(frozen=True, eq=False)
class RetainedVariable:
    """The retained steps of one variable, oldest first; nothing is read until a step is asked for.

    ``u[-1]`` is the newest as an `xarray.DataArray`, with every cell in the dtype that is sent; the coordinates are
    indices, ``step`` and ``time`` those of the step. ``u[-3:]`` has the last three behind each other along ``step``.
    ``len(u)`` is how many there are by now: each question is answered anew.

    All raise `LocalProtocolError` for a variable that is not seen outside its ranks and for a run that retains nothing,
    `TimeoutError` where the run does not answer, and `RunError` where it has ended.
    """

    name: str
    _exact: Exact
    _select: Select

    def isel(self, **select: Any) -> "RetainedVariable":
        """Return the same of some cells only: by dim an index, or a slice with a positive step."""
        return RetainedVariable(self.name, self._exact, {**self._select, **checked(select)})

    @property
    def steps(self) -> tuple[int, ...]:
        """The indices of the retained steps."""
        return tuple(step for _, step in self._exact.listed([self.name], time.monotonic() + SAY_S))

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, which: int | slice) -> xr.DataArray:
        """Return a retained step by its place among them, or several. Where there is none yet, ``[-1]`` waits for one.

        Raises `IndexError` where there are not so many, and `RunError` where they go faster than they can be read.
        """
        deadline = _soon()
        if isinstance(which, slice):
            several = self._exact.recent([self.name], self._select, which, deadline)
            return stacked([each[self.name] for each in several])
        if which == -1:
            return self._exact.newest([self.name], self._select, 0, deadline)[1][self.name]
        found = self._exact.recent([self.name], self._select, slice(which, which + 1), deadline)
        if not found:
            raise IndexError(f"'{self.name}' has {count(len(self), 'retained step')}, and no [{which}].")
        return found[0][self.name]

    def __iter__(self) -> Iterator[xr.DataArray]:
        """Read those that are retained by now, one after the other; those that are gone until then are left out."""
        for sequence, _ in self._exact.listed([self.name], _soon()):
            arrays = self._exact.read([self.name], self._select, sequence, _soon())
            if arrays is not None:
                yield arrays[self.name]

    def __repr__(self) -> str:
        try:
            steps = self.steps
        except (InsituError, TimeoutError) as error:
            return f"<'{self.name}': {error}>"
        which = f", {steps[0]} to {steps[-1]}" if steps else ""
        return f"<'{self.name}': {count(len(steps), 'retained step')}{which}>"


def _soon() -> float:
    return time.monotonic() + STEP_S


def stacked(several: list[xr.DataArray]) -> xr.DataArray:
    """Put steps behind each other along ``step``.

    Raises `LocalProtocolError` where their shapes differ, or there are none.
    """
    if not several:
        raise LocalProtocolError("None of the retained steps is selected.")
    if any(each.shape != several[0].shape for each in several):
        shapes = ", ".join(str(each.shape) for each in several)
        raise LocalProtocolError(f"'{several[0].name}' has another shape in each step ({shapes}); take one at a time.")
    return xr.concat(several, "step", coords=["time"], compat="override", join="exact")
