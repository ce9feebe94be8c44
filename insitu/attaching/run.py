# SPDX-License-Identifier: Apache-2.0
"""All that can be asked of a run that goes on."""

import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import xarray as xr

from insitu.attaching.asking import Asking
from insitu.attaching.exact import Arrays, Exact, Select, checked
from insitu.attaching.variable import SAY_S, STEP_S, RetainedVariable
from insitu.console import Console
from insitu.dashboard.launch import Address, dashboard
from insitu.dashboard.notebook import run_html
from insitu.dashboard.pictures import Picture, assembled, ranges_of
from insitu.errors import LocalProtocolError, RunError
from insitu.wire.contact import Contact
from insitu.wire.limits import SIGHT_VALUES

#: How long results that cannot be read may be those that are being written: a row takes milliseconds.
WRITTEN_S = 2.0
_POLL_S = 0.01


class AttachedRun:
    """A run that goes on, seen from outside. Made by `insitu.attach`; belongs to one thread; to be closed."""

    def __init__(self, contact: Contact, path: Path) -> None:
        self.name = contact.run
        self.directory = Path(contact.directory)
        self._contact = contact
        self._path = path
        self._serving = ExitStack()
        self._address: Address | None = None
        self._last: dict[str, Any] = {}
        self._asking = Asking(contact)
        self._exact = Exact(self._asking)
        self._console: Console | None = None

    @property
    def over(self) -> bool:
        """Whether the run has said that it has ended."""
        return self._asking.over

    @property
    def parameters(self) -> dict[str, Any]:
        """What the parameters that the simulation has declared are set to, by name."""
        if self._console is None:
            self._console = Console(self._contact)
        self._console.listen()
        return dict(self._console.values)

    def snapshot(self) -> dict[str, Any]:
        """Return how the run does, as the dashboard shows it and ``snapshot.json`` keeps it.

        Raises `TimeoutError` where the controller does not answer, `RunError` where the run has ended.
        """
        self._last = self._asking.news()
        return self._last

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        """What the ranks put so far, by name: dtype, shape, dims, units, and how much of it has come."""
        return {str(each["name"]): each for each in self.snapshot()["variables"]}

    def __getitem__(self, variable: str) -> RetainedVariable:
        """Return a variable as a sequence of its retained steps: ``run["u"][-1]`` is the newest, exactly."""
        return RetainedVariable(variable, self._exact, {})

    @overload
    def steps(
        self,
        variables: str,
        select: Mapping[str, int | slice] | None = None,
        *,
        from_step: int | None = None,
        from_start: bool = False,
        timeout: float = STEP_S,
    ) -> Iterator[xr.DataArray]: ...
    @overload
    def steps(
        self,
        variables: list[str] | tuple[str, ...],
        select: Mapping[str, int | slice] | None = None,
        *,
        from_step: int | None = None,
        from_start: bool = False,
        timeout: float = STEP_S,
    ) -> Iterator[dict[str, xr.DataArray]]: ...
    def steps(
        self,
        variables: str | list[str] | tuple[str, ...],
        select: Mapping[str, int | slice] | None = None,
        *,
        from_step: int | None = None,
        from_start: bool = False,
        timeout: float = STEP_S,
    ) -> Iterator[xr.DataArray] | Iterator[dict[str, xr.DataArray]]:
        """Yield exact steps as they come, each once and in order, until the run ends.

        Of a list of variables come dicts, each of one step that has all of them. `select` takes some cells: by dim an
        index, or a slice with a positive step. Those come that are retained from now on; before them, those that are
        retained already from step `from_step` on, or ``from_start`` all of them. Live steps follow the policy
        ``latest``: whoever takes long with one finds the newest next, and never holds up the run.

        Where `from_step` is not retained any more, a warning says which steps are, and the oldest comes first. Raises
        `TimeoutError` when no step comes within `timeout` seconds, `LocalProtocolError` for a variable that is never
        seen outside its ranks, what cannot be selected of it, and a run that retains nothing.
        """
        if from_step is not None and from_start:
            raise LocalProtocolError("steps: give from_step or from_start, not both.")
        names = [variables] if isinstance(variables, str) else list(variables)
        first = -np.inf if from_start else np.inf if from_step is None else from_step
        listed = self._exact.listed(names, time.monotonic() + SAY_S)
        if from_step is not None and listed and listed[0][0] > 0 and from_step < listed[0][1]:
            warnings.warn(
                f"Step {from_step} is not retained any more; steps {listed[0][1]} to {listed[-1][1]} are.", stacklevel=2
            )
        backlog = [sequence for sequence, step in listed if step >= first]
        since = listed[-1][0] + 1 if listed else 0
        found = self._from(names, checked(select), backlog, since, from_step, timeout)
        return (arrays[variables] for arrays in found) if isinstance(variables, str) else found

    def _from(
        self, names: list[str], select: Select, backlog: list[int], since: int, from_step: int | None, timeout: float
    ) -> Iterator[Arrays]:
        """Yield what is left of the backlog, and then of the steps since a sequence the newest, again and again."""
        while not self.over:
            deadline = time.monotonic() + timeout
            try:
                if backlog:
                    arrays = self._exact.read(names, select, backlog.pop(0), deadline)
                else:
                    at, arrays = self._exact.newest(names, select, since, deadline)
                    since = at + 1
            except RunError:
                if not self.over:
                    raise
                return
            if arrays is not None and (from_step is None or int(arrays[names[0]].step) >= from_step):
                yield arrays

    def next(
        self,
        variable: str,
        select: Mapping[str, int | slice] | None = None,
        *,
        most: int = SIGHT_VALUES,
        timeout: float = STEP_S,
    ) -> xr.DataArray:
        """Wait for the next step of a variable and return a picture of it, be it retained or not.

        An array of more than `most` cells (at most 2**21) is thinned, evenly in all dims: the coordinates are the
        indices that are there. The values are float32, of complex numbers the magnitude; NaN where a part is missing.
        ``step`` and ``time`` are those of the step; of a joined variable the rows are in no certain order.

        Raises `TimeoutError` when no step comes within `timeout` seconds, `RunError` when the run ends before, and
        `LocalProtocolError` for a variable that is never seen outside its ranks, for it is put by none, or folded by no
        operator.
        """
        chosen, deadline = checked(select), time.monotonic() + timeout
        parts = self._asking.look(variable, ranges_of(chosen), most, None, deadline)
        return _array(variable, assembled(parts, chosen), chosen)

    def plot(
        self, variable: str, select: Mapping[str, int | slice] | None = None, *, timeout: float = STEP_S, **how: Any
    ) -> Any:
        """Draw the next step of a variable by `xarray.DataArray.plot`, which takes `how`, and return what that does.

        One dimension is a line, two are a picture, more a histogram; `select` takes a slice. Errors of `next`, and
        `ImportError` without matplotlib.
        """
        return self.next(variable, select, timeout=timeout).plot(**how)

    def dashboard(self, host: str = "127.0.0.1", port: int = 0) -> Address:
        """Serve the dashboard of this run until `close`, and return where it is; a notebook shows that as links.

        `port` 0 is any free one. The second call returns the same. Raises `RunError` where its libraries are missing
        (``pip install 'insitu[dashboard]'``), or it cannot listen.
        """
        if self._address is None:
            found = self._serving.enter_context(dashboard([self._path], host, port))
            self._address = found()
        return self._address

    def results(self) -> xr.DataTree:
        """Open what is stored of the results so far: one group for each operator, read from the disk when it is used.

        Raises `RunError` where the run's directory cannot be read from here, or nothing is stored yet.
        """
        path, deadline = self.directory / "results.zarr", time.monotonic() + WRITTEN_S
        while True:
            try:
                return xr.open_datatree(path, engine="zarr", chunks=None, consolidated=False)
            except (OSError, KeyError, ValueError) as error:  # a row that is being written is not yet in all arrays
                if time.monotonic() > deadline:
                    raise RunError(
                        f"No results of run '{self.name}' can be read from {path} ({error}); it is on "
                        f"{self._contact.host}, and the first window may still be open."
                    ) from error
                threading.Event().wait(_POLL_S)

    def close(self) -> None:
        """Let go of the run, which goes on. May be called twice."""
        self._serving.close()
        self._address = None
        self._asking.close()
        if self._console is not None:
            self._console.close()

    def _repr_html_(self) -> str:
        """Show the run in a notebook as it is now; once it has ended, as it was last seen."""
        with suppress(RunError, TimeoutError):
            self.snapshot()
        return run_html(self._last or {"run": self.name})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _array(name: str, picture: Picture, select: Select) -> xr.DataArray:
    if picture.why or picture.variable is None:
        raise LocalProtocolError(f"'{name}' cannot be seen: {picture.why or 'no rank puts it'}.")
    variable = picture.variable
    coords: dict[str, Any] = {"step": picture.index, "time": picture.time}
    dims = [dim for dim in variable.dims if not isinstance(select.get(dim), int)]
    if variable.shape is not None:
        by_dim = dict(zip(dims, picture.stride, strict=True))
        for dim, length in zip(variable.dims, variable.shape, strict=True):
            which = select.get(dim, slice(None))
            cells = np.arange(length)[which]
            coords[dim] = cells[:: by_dim[dim]] if dim in by_dim else cells
    attrs = {key: value for key in ("units", "long_name") if (value := getattr(variable, key))}
    return xr.DataArray(picture.values, coords, dims, name, attrs)
