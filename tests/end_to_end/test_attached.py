# SPDX-License-Identifier: Apache-2.0
"""Attached to a run of three ranks and two staging nodes: exactly what was put, and nobody waits for who looks.

One run serves all of these tests, and the last of them ends it.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import insitu
from insitu.attaching import AttachedRun
from insitu.errors import LocalProtocolError
from insitu.wire.viewing import Look
from tests.cli import calls
from tests.end_to_end.conftest import Start
from tests.end_to_end.programs.shapes import RANKS, SHAPE, field, particles, scalar
from tests.end_to_end.programs.watched import ARRAYS
from tests.end_to_end.runs import Running, program, told, total

pytestmark = [pytest.mark.in_order, pytest.mark.leaks_per_module]

WINDOW = 20
#: What a step of a rank takes is a millisecond; two cores have ten processes here, and one is stopped now and then.
LONGEST_S = 1.0


@pytest.fixture(scope="module")
def running(start_shared: Start) -> Running:
    operators = {name: total(name, window=WINDOW) for name in ARRAYS}
    operators |= {f"{name}s": total(name, over="space") for name in ("particles", "agreed", "lonely")}
    staging = {"retain": "64 KiB"}  # some fifty steps
    running = start_shared(
        *program("watched"), ranks=RANKS, nodes=2, operators=operators, staging=staging, run="watched"
    )
    running.until("runs", "watched", "results.zarr", "uneven", "zarr.json")
    return running


@pytest.fixture(scope="module")
def run(running: Running) -> Iterator[AttachedRun]:
    with insitu.attach(running.directory) as run:
        yield run


@pytest.fixture(scope="module", autouse=True)
def idle(running: Running) -> Iterator[None]:
    """Another one, that has asked for much and takes nothing."""
    with insitu.attach(running.directory) as idle:
        for number in range(200):
            idle._asking._viewer.look(Look(number, "uneven", (), None, 0))
        yield


def right(array: xr.DataArray, cells: tuple[int | slice, ...] = ()) -> int:
    """Look whether an array is what was put, and return of which step."""
    n = int(array.step) // 10
    expected = field(str(array.name), n)[cells]
    assert array.dtype == expected.dtype
    assert float(array.time) == 0.5 * n
    np.testing.assert_array_equal(array, expected)
    return n


def test_the_newest_steps_are_as_they_were_put(run: AttachedRun) -> None:
    for name in ARRAYS:
        right(run[name][-1])
    several = run["uneven"][-3:]
    assert several.dims == ("step", "y", "x")
    assert [right(each) for each in several] == sorted(several.step.values // 10)
    assert len(run["uneven"]) > 3
    assert len({right(each) for each in run["uneven"]}) > 3
    assert str(run["uneven"]).startswith("<'uneven': ")


def test_some_cells_are_as_exact(run: AttachedRun) -> None:
    array = run["columns"].isel(y=slice(1, None, 2), x=-2)[-1]
    right(array, np.s_[1::2, -2])
    assert array.y.values.tolist() == list(range(1, SHAPE[0], 2))
    assert int(array.x) == SHAPE[1] - 2


def test_of_particles_all_rows_are_there(run: AttachedRun) -> None:
    array = run["particles"][-1]
    rows = np.concatenate([particles(rank, int(array.step) // 10) for rank in range(RANKS)])
    assert sorted(map(tuple, array.values)) == sorted(map(tuple, rows))
    assert array.units == "m/s"


def test_a_single_number_is_one_whoever_puts_it(run: AttachedRun) -> None:
    agreed = run["agreed"][-1]
    assert (agreed.dims, float(agreed)) == ((), scalar(int(agreed.step) // 10))
    for lonely in (run["lonely"][-1], next(run.steps("lonely"))):
        assert (lonely.dtype, 10 * int(lonely)) == (np.int64, int(lonely.step))


def test_a_picture_comes_also_of_what_only_one_staging_node_gets(run: AttachedRun) -> None:
    for name in ("lonely", "uneven"):
        picture = run.next(name, timeout=10)
        n = int(picture.step) // 10
        np.testing.assert_array_equal(picture, n if name == "lonely" else field(name, n))


def test_a_large_field_comes_in_pieces(run: AttachedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insitu.attaching.exact.PIECE_BYTES", 100)
    right(run["uneven"][-1])
    right(run["uneven"].isel(y=slice(1, 7, 2), x=slice(2, 5))[-1], np.s_[1:7:2, 2:5])


def test_steps_from_the_start_come_before_those_that_are_live(run: AttachedRun) -> None:
    retained = run["uneven"].steps
    select = {"y": slice(1, 6), "x": 3}
    steps = run.steps("uneven", select, from_start=True)
    found = [right(each, np.s_[1:6, 3]) for each in islice(steps, len(retained) + 5)]
    assert found == sorted(set(found))
    assert found[0] * 10 >= retained[0]
    assert found[-1] * 10 > retained[-1]


def test_steps_from_one_on_are_of_several_variables(run: AttachedRun) -> None:
    middle = run["short"].steps[-5]
    for arrays in islice(run.steps(["short", "uneven"], from_step=middle), 8):
        assert right(arrays["short"]) == right(arrays["uneven"]) >= middle // 10


def test_where_the_first_is_gone_the_oldest_comes(run: AttachedRun) -> None:
    while run["uneven"].steps[0] == 0:
        next(run.steps("uneven"))
    with pytest.warns(UserWarning, match="Step 0 is not retained any more; steps [1-9]"):
        steps = run.steps("uneven", from_step=0)
    right(next(steps))


def test_live_steps_are_those_that_come_from_now_on(run: AttachedRun) -> None:
    newest = run["columns"].steps[-1]
    found = [right(each) for each in islice(run.steps("columns"), 5)]
    assert found == sorted(set(found))
    assert found[0] * 10 > newest


def test_what_cannot_be_had_is_said(run: AttachedRun) -> None:
    with pytest.raises(LocalProtocolError, match='the dims of "uneven" are y, x'):
        run["uneven"].isel(z=1)[-1]
    with pytest.raises(LocalProtocolError, match="'y' takes a slice with a positive step"):
        run["uneven"].isel(y=slice(None, None, -1))
    with pytest.raises(LocalProtocolError, match="No rank puts a variable 'unevn'; did you mean"):
        len(run["unevn"])
    with pytest.raises(IndexError, match=r"and no \[99999\]"):
        run["uneven"][99999]


def test_a_terminal_shows_and_saves_them(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = calls.insitu("attach", running.directory, "--count", 2, "-v", "uneven", "--select", "y=0:2")
    assert done.exit_code == 0, done.stderr
    assert "columns" in done.stdout
    assert "7 x 6" in done.stdout
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("step ")]
    for _, step, _, time, name, *spread in lines:
        rows = field(name, int(step) // 10)[:2]
        assert [float(time), *map(float, spread)] == [
            int(step) / 20,
            *(float(f"{v:.4g}") for v in (rows.min(), rows.mean(), rows.max())),
        ]
    assert len(lines) == 2

    monkeypatch.chdir(running.folder)  # it is the newest of this folder
    for name in ("steps.npz", "steps.zarr"):
        done = calls.insitu("attach", "--save", tmp_path / name, "-v", "uneven", "-v", "short", "--count", 3)
        assert done.exit_code == 0, done.stderr
        assert "Wrote 3 steps" in done.stdout
    saved = xr.open_zarr(tmp_path / "steps.zarr", chunks=None, consolidated=False)
    assert [right(each) for each in saved["uneven"]] == [right(each) for each in saved["short"]]
    with np.load(tmp_path / "steps.npz") as arrays:
        np.testing.assert_array_equal(arrays["uneven"][2], field("uneven", int(arrays["step"][2]) // 10))


class TestEnd:
    def test_nobody_has_waited_for_who_looks(self, running: Running, run: AttachedRun) -> None:
        steps = run.steps("uneven")
        with insitu.steer(running.directory) as helm:
            helm.stop()
            for each in steps:
                right(each)
        assert run.over
        assert "has ended" in repr(run["uneven"])
        left = running.wait()
        assert left.status == 0, left.stderr
        said = told(running.folder, RANKS)
        assert max(each["longest_s"] for each in said) < LONGEST_S
        done = said[0]["steps"]
        for name in ARRAYS:
            sums = [
                np.sum([field(name, n) for n in range(first, min(first + WINDOW, done))], axis=0)
                for first in range(0, done, WINDOW)
            ]
            np.testing.assert_array_equal(left.results(name)["total"], sums)
