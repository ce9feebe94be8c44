# SPDX-License-Identifier: Apache-2.0
"""Look at a run that goes on, from a notebook: steps as they come, its parameters, and the results so far.

    >>> run = insitu.attach("runs/gray-scott")  # doctest: +SKIP
    >>> run["u"]  # the next step of it, as an xarray.DataArray  # doctest: +SKIP
    <xarray.DataArray 'u' (y: 256, x: 256)> ...
    >>> for u in run.steps("u"):  # live, until the run ends; some in between are left out  # doctest: +SKIP
    ...     u.plot()

Whoever is attached is a viewer as the dashboard is: nothing is sent that it has not asked for, so it can come and go,
and a slow one misses steps instead of holding up the run. It cannot change anything; `insitu.steer` can.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import xarray as xr

from insitu.config.words import nearest
from insitu.console import Console
from insitu.dashboard.launch import Address, dashboard
from insitu.dashboard.notebook import run_html
from insitu.dashboard.pictures import Picture, assembled
from insitu.dashboard.viewer import Viewer
from insitu.errors import LocalProtocolError, RunError
from insitu.wire.contact import Contact
from insitu.wire.limits import SIGHT_VALUES
from insitu.wire.viewing import Look, News, Sight

#: How long a step is waited for: a simulation may compute for a while between two.
STEP_S = 60.0
#: How long the controller may take to say how the run does.
NEWS_S = 10.0
#: After so long a look is asked for again: a staging node that was to answer may be gone.
AGAIN_S = 5.0
#: How long results that cannot be read may be those that are being written: a row takes milliseconds.
WRITTEN_S = 2.0
_POLL_S = 0.1


class AttachedRun:
    """A run that goes on, seen from outside. Made by `attach`; belongs to one thread; to be closed."""

    def __init__(self, contact: Contact, path: Path) -> None:
        self.name = contact.run
        self.directory = Path(contact.directory)
        self._contact = contact
        self._path = path
        self._serving = ExitStack()
        self._address: Address | None = None
        self._last: dict[str, Any] = {}
        self._viewer = Viewer(contact)
        self._console: Console | None = None
        self._number = 0
        self._seen: set[str] = set()

    @property
    def over(self) -> bool:
        """Whether the run has said that it has ended."""
        return self._viewer.over

    @property
    def parameters(self) -> dict[str, Any]:
        """What the parameters that the simulation has declared are set to, by name."""
        if self._console is None:
            self._console = Console(self._contact)
        self._console.listen()
        return dict(self._console.values)

    def snapshot(self) -> dict[str, Any]:
        """Return how the run does, as the dashboard shows it and ``snapshot.json`` keeps it.

        Raises `TimeoutError` where the controller does not answer within `NEWS_S`, `RunError` where the run has ended.
        """
        self._viewer.ask()
        found: list[News] = []

        def take(answer: News | Sight) -> bool:
            if isinstance(answer, News):
                found.append(answer)
            return bool(found)

        self._wait(take, NEWS_S, "how it does")
        self._last = found[-1].snapshot
        return self._last

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        """What the ranks put so far, by name: dtype, shape, dims, units, and how much of it has come."""
        return {str(each["name"]): each for each in self.snapshot()["variables"]}

    def latest(
        self, variable: str, at: Mapping[str, int] | None = None, *, most: int = SIGHT_VALUES, timeout: float = STEP_S
    ) -> xr.DataArray:
        """Wait for the next step of a variable and return it, whatever the ranks and staging nodes it lies on.

        `at` names the one index that is wanted of some dims: a slice. An array of more than `most` cells for each
        staging node (at most 2**21) is thinned, evenly in all dims: the coordinates are the indices that are there.
        The values are float32, of complex numbers the magnitude; NaN where a part is missing. ``step`` and ``time``
        are those of the step; of a joined variable the rows are in no certain order.

        Raises `TimeoutError` when no step comes within `timeout` seconds, `RunError` when the run ends before, and
        `LocalProtocolError` for a variable that is never seen outside its ranks, for it is put by none, or folded by no
        operator.
        """
        at = {} if at is None else dict(at)
        begin, asked_at, parts = time.monotonic(), -AGAIN_S, list[Sight]()
        self._require_seen(variable)

        def take(answer: News | Sight) -> bool:
            if isinstance(answer, Sight) and answer.number == self._number:
                parts.append(answer)
            return bool(parts) and len(parts) == parts[0].parts

        while (left_s := timeout - (time.monotonic() - begin)) > 0:
            if time.monotonic() - asked_at >= AGAIN_S:
                self._number += 1
                parts.clear()
                asked_at = time.monotonic()
                self._viewer.look(Look(self._number, variable, tuple(at.items()), most))
            if self._heard(take, min(_POLL_S, left_s), f"a step of '{variable}'"):
                return _array(variable, assembled(parts, at), at)
        raise TimeoutError(f"Run '{self.name}': no step of '{variable}' came within {timeout:g} s.")

    def __getitem__(self, variable: str) -> xr.DataArray:
        return self.latest(variable)

    def steps(
        self, variable: str, at: Mapping[str, int] | None = None, *, most: int = SIGHT_VALUES, timeout: float = STEP_S
    ) -> Iterator[xr.DataArray]:
        """Yield steps of a variable as they come, each once, until the run ends. Arguments and errors of `latest`.

        Steps that pass while the caller is busy with one are left out.
        """
        while not self.over:
            try:
                yield self.latest(variable, at, most=most, timeout=timeout)
            except RunError:
                if not self.over:
                    raise

    def plot(self, variable: str, at: Mapping[str, int] | None = None, *, timeout: float = STEP_S, **how: Any) -> Any:
        """Draw the next step of a variable by `xarray.DataArray.plot`, which takes `how`, and return what that does.

        One dimension is a line, two are a picture, more a histogram; `at` takes a slice. Errors of `latest`, and
        `ImportError` without matplotlib.
        """
        return self.latest(variable, at, timeout=timeout).plot(**how)

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
                threading.Event().wait(_POLL_S / 10)

    def close(self) -> None:
        """Let go of the run, which goes on. May be called twice."""
        self._serving.close()
        self._address = None
        self._viewer.close()
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

    def _require_seen(self, variable: str) -> None:
        """Tell at once of a variable that will never come; before the first step nobody knows."""
        if variable in self._seen:
            return
        known = self.variables
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
        if known:
            self._seen.add(variable)

    def _wait(self, take: Callable[[News | Sight], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        while (left_s := deadline - time.monotonic()) > 0:
            if self._heard(take, min(_POLL_S, left_s), what):
                return
        raise TimeoutError(
            f"Run '{self.name}' has not said {what} within {timeout:g} s; is its controller still there?"
        )

    def _heard(self, take: Callable[[News | Sight], bool], wait_s: float, what: str) -> bool:
        """Take in what is said; return whether that was all. Raises `RunError` where nothing more will be said."""
        done = any(take(answer) for answer in self._viewer.receive(wait_s))
        if not done and self._viewer.over:
            raise RunError(f"Run '{self.name}' has ended before it said {what}; see {self.directory}.")
        return done


def attach(contact: str | os.PathLike[str]) -> AttachedRun:
    """Look at a run that goes on, by its contact file, or by the run's directory that holds it.

    Raises `RunError` where there is no such run, it lets nobody look, or it does not answer.
    """
    path = Path(contact)
    path = path / "contact.json" if path.is_dir() else path
    return AttachedRun(Contact.read(path), path)


def _array(name: str, picture: Picture, at: Mapping[str, int]) -> xr.DataArray:
    if picture.why or picture.variable is None:
        raise LocalProtocolError(f"'{name}' cannot be seen: {picture.why or 'no rank puts it'}.")
    variable = picture.variable
    coords: dict[str, Any] = {"step": picture.index, "time": picture.time, **at}
    dims = [dim for dim in variable.dims if dim not in at]
    if variable.shape is not None:
        coords |= {
            dim: np.arange(count) * stride
            for dim, count, stride in zip(dims, picture.values.shape, picture.stride, strict=True)
        }
    attrs = {key: value for key in ("units", "long_name") if (value := getattr(variable, key))}
    return xr.DataArray(picture.values, coords, dims, name, attrs)
