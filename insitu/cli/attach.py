# SPDX-License-Identifier: Apache-2.0
"""``insitu attach``: the last steps of a run and those to come, in the terminal or in a file."""

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import click
import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from insitu.attaching import AttachedRun, attach
from insitu.attaching.saving import require_free, save, together
from insitu.config.values import indices, read_indices
from insitu.errors import ConfigError, LocalProtocolError, RunError
from insitu.text import count, size

#: Variables of up to so many bytes are shown where none is named.
SMALL_BYTES = 1 << 20
#: How often it is looked whether the simulation has begun.
_LOOK_S = 0.5


@click.command()
@click.argument("contact", metavar="[CONTACT]", required=False)
@click.option(
    "--variable", "-v", "variables", multiple=True, help="A variable; may be given again (default: all small)."
)
@click.option("--select", multiple=True, metavar="DIM=CELLS", help="Cells of a dim: y=0:64, y=::4, or x=7.")
@click.option("--from-step", type=int, metavar="N", help="Begin with step N, if it is still retained.")
@click.option("--count", "wanted", type=click.IntRange(1), metavar="K", help="End after K steps.")
@click.option("--save", "path", type=click.Path(path_type=Path), metavar="FILE", help="Write them: .zarr, .nc or .npz.")
def command(
    contact: str | None,
    variables: tuple[str, ...],
    select: tuple[str, ...],
    from_step: int | None,
    wanted: int | None,
    path: Path | None,
) -> None:
    """Look at the steps of a run that goes on.

    CONTACT is the contact file of a run, or its directory; without it, it is the run of INSITU_CONTACT, or the newest
    one in ./runs. First comes what it has; then, for each step, the least, the mean and the largest value of the
    variables, until Ctrl-C or the run's end. With --save the newest step is written, exactly, or K steps: the newest
    that are there, or from step N on.
    """
    cells = _cells(select)
    if path is not None:
        require_free(path)
    try:
        with attach(contact) as run:
            snapshot = _begun(run)
            known = {str(each["name"]): each for each in snapshot["variables"]}
            _overview(run, snapshot["progress"], known, Console())
            names = list(variables) or _small(known)
            if path is not None:
                _save(run, names, cells, from_step, wanted, path)
            else:
                _follow(run, names, cells, from_step, wanted)
    except KeyboardInterrupt:
        click.echo("The run goes on.", err=True)
    except LocalProtocolError as error:
        raise ConfigError(str(error)) from error
    except TimeoutError as error:
        raise RunError(str(error)) from error


def _cells(select: tuple[str, ...]) -> dict[str, int | slice]:
    """Read what is given as DIM=CELLS."""
    found: dict[str, int | slice] = {}
    for text in select:
        dim, equals, cells = text.partition("=")
        try:
            if not (dim and equals):
                raise ValueError
            found[dim] = slice(*indices(read_indices(cells))) if ":" in cells else int(cells)
        except ValueError:
            raise ConfigError(f"--select {text}: write a dim and its cells, as in y=0:64, y=::4 or x=7") from None
    return found


def _begun(run: AttachedRun) -> dict[str, Any]:
    """Wait until the simulation has put something, and return how the run does then."""
    told = False
    while not (snapshot := run.snapshot())["variables"]:
        if not told:
            click.echo(f"Run '{run.name}' has no step yet; waiting for the first.", err=True)
            told = True
        threading.Event().wait(_LOOK_S)
    return snapshot


def _overview(
    run: AttachedRun, progress: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], console: Console
) -> None:
    """Say which run it is, and what it has."""
    step = "no step yet" if progress["index"] is None else f"step {progress['index']}, time {progress['time']:.6g}"
    console.print(f"{run.name}: {step}, in {run.directory}", soft_wrap=True, highlight=False, markup=False)
    table = Table("variable", "dtype", "shape", "dims", "retained steps", box=None, pad_edge=False)
    for name, one in known.items():
        shape = one["shape"] if one["shape"] is not None else ["any", *one["row"]]
        shown = " x ".join(map(str, shape)) or "one number"
        table.add_row(name, one["dtype"], shown, ", ".join(one["dims"]), _retained(run, name, one["needed"]))
    console.print(table)


def _retained(run: AttachedRun, name: str, needed: bool) -> str:
    if not needed:
        return "stays with its ranks"
    try:
        steps = run[name].steps
    except LocalProtocolError as error:
        return str(error)
    return f"{len(steps)}: {steps[0]} to {steps[-1]}" if steps else "none yet"


def _small(known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the small variables that come with each step. Raises `ConfigError` where there are none."""
    needed = {name: one for name, one in known.items() if one["needed"]}
    most = max((one["delivered"] for one in needed.values()), default=0)
    small = [
        name
        for name, one in needed.items()
        if one["delivered"] == most and prod(one["shape"] or ()) * np.dtype(one["dtype"]).itemsize <= SMALL_BYTES
    ]
    if not small:
        raise ConfigError(f"no variable of this run has at most {size(SMALL_BYTES)}; name one: --variable NAME")
    return small


@contextmanager
def _told() -> Iterator[None]:
    """Say warnings as sentences."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        click.echo(f"Warning: {warning.message}", err=True)


def _steps(
    run: AttachedRun, names: list[str], cells: dict[str, int | slice], from_step: int | None
) -> Iterator[dict[str, xr.DataArray]]:
    with _told():
        return run.steps(names, cells, from_step=from_step)


def _follow(
    run: AttachedRun, names: list[str], cells: dict[str, int | slice], from_step: int | None, wanted: int | None
) -> None:
    """Show a line for each step."""
    click.echo("Each step: the least, the mean and the largest value. Ctrl-C ends it.", err=True)
    for arrays in islice(_steps(run, names, cells, from_step), wanted):
        first = arrays[names[0]]
        values = "  ".join(f"{name} {_spread(array)}" for name, array in arrays.items())
        click.echo(f"step {int(first.step):>7}  time {float(first.time):<10.6g}  {values}")
    if run.over:
        click.echo("The run has ended.", err=True)


def _spread(array: xr.DataArray) -> str:
    values = np.asarray(array)
    values = np.abs(values) if values.dtype.kind == "c" else values.astype(float)
    values = values[np.isfinite(values)]
    return f"{values.min():.4g} {values.mean():.4g} {values.max():.4g}" if values.size else "nothing finite"


def _save(
    run: AttachedRun,
    names: list[str],
    cells: dict[str, int | slice],
    from_step: int | None,
    wanted: int | None,
    path: Path,
) -> None:
    """Write steps into a file, and say which."""
    if from_step is None:
        retained = sorted(set.intersection(*(set(run[name].steps) for name in names)))
        from_step = next(iter(retained[-(wanted or 1) :]), None)
    several = list(islice(_steps(run, names, cells, from_step), wanted or 1))
    if not several:
        raise RunError(f"Run '{run.name}' has ended before a step could be written.")
    whole = together(several) if wanted is not None else together(several).isel(step=0)
    save(whole, path)
    steps = np.atleast_1d(np.asarray(whole.step)).tolist()
    which = f"step {steps[0]}" if len(steps) == 1 else f"{count(len(steps), 'step')}, {steps[0]} to {steps[-1]},"
    click.echo(f"Wrote {which} of {', '.join(names)} to {path}.")
