# SPDX-License-Identifier: Apache-2.0
"""What a picture becomes for who is attached; ``docs/attach.md`` attaches to a run that goes on."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import insitu
from insitu.attaching.asking import AGAIN_S, Asking
from insitu.attaching.finding import find
from insitu.attaching.run import _array
from insitu.attaching.saving import save, together
from insitu.dashboard.pictures import assembled, ranges_of
from insitu.errors import LocalProtocolError, RunError
from insitu.model import Array, Block, Step, Variable
from insitu.staging.assembler import ReadyStep
from insitu.staging.glimpses import Glimpses
from insitu.staging.retained import Retained
from insitu.wire.contact import Contact
from insitu.wire.session import Link
from insitu.wire.viewing import Ask, Look, News, Peek, Sight, Watch, Watching
from tests.cli import calls
from tests.wire.fakes import FakeListener

U = Variable("u", np.dtype("f8"), (6, 8), ("y", "x"), "K", "temperature")
WHOLE = np.arange(48.0).reshape(6, 8)


def seen(select: dict[str, int | slice], most: int, variable: Variable = U, data: Array = WHOLE) -> Sight:
    """What one staging node shows of a step of two ranks."""
    glimpses = Glimpses(Retained(0), lambda variable: True)
    glimpses.ask(Peek(1, variable.name, ranges_of(select), most))
    blocks = {
        rank: {variable.name: Block(variable, (3 * rank, 0), part)} for rank, part in enumerate((data[:3], data[3:]))
    }
    [glimpse] = glimpses.of([ReadyStep(Step(4, 40, 0.4), blocks, {})])
    fields = ("variable", "sequence", "index", "time", "stride", "pieces", "why", "buffers")
    return Sight(1, 1, *(getattr(glimpse, field) for field in fields))


@pytest.mark.parametrize(
    ("select", "most", "cells"),
    [
        ({}, 48, np.s_[:, :]),
        ({}, 12, np.s_[::2, ::2]),
        ({"y": 4}, 8, np.s_[4, :]),
        ({"x": -7}, 3, np.s_[::2, 1]),
        ({"y": slice(1, None, 2), "x": slice(2, 7)}, 6, np.s_[1::4, 2:7:2]),
    ],
)
def test_a_picture_has_the_cells_and_their_indices(
    select: dict[str, int | slice], most: int, cells: tuple[slice, slice]
) -> None:
    array = _array("u", assembled([seen(select, most)], select), select)
    np.testing.assert_array_equal(array, WHOLE[cells])
    assert (array.name, array.attrs) == ("u", {"units": "K", "long_name": "temperature"})
    assert (int(array.step), float(array.time)) == (40, 0.4)
    for dim, index in zip("yx", cells, strict=True):
        np.testing.assert_array_equal(array[dim], np.arange(U.shape[U.dims.index(dim)])[index])


def test_of_a_joined_variable_there_are_rows_without_indices() -> None:
    particles = Variable("p", np.dtype("f8"), None, ("particle", "axis"), row=(8,))
    array = _array("p", assembled([seen({}, 48, particles)], {}), {})
    assert sorted(map(tuple, array.values)) == sorted(map(tuple, WHOLE))
    assert set(array.coords) == {"step", "time"}


def test_a_variable_that_no_node_has_yet_is_looked_for_again_at_once() -> None:
    """Before the first step nobody knows who sends a variable where, and the first step need not have it."""
    controller = FakeListener(Link.VIEWER_CONTROLLER)
    contact = Contact("melt", controller.listener.address, os.getpid(), "n17", "melt")

    def look() -> list[Sight]:
        with closing(Asking(contact)) as asking:
            return asking.look("u", (), 48, None, time.monotonic() + AGAIN_S / 2)

    with closing(controller), ThreadPoolExecutor(1) as thread:
        looked = thread.submit(look)
        controller.hear(Watch)
        controller.say(Watching("melt"))
        controller.hear(Ask)
        controller.say(News.of({"variables": []}))
        nothing = Sight(controller.hear(Look).number, 2, None, 0, 0, 0.0, (), (), "", ())
        for _ in range(2):
            controller.say(nothing)
        number = controller.hear(Look, 2).number
        controller.say(replace(seen({}, 48), number=number, parts=2))
        controller.say(replace(nothing, number=number))
        assert [part.variable for part in looked.result()] == [U, None]


def test_what_cannot_be_seen_is_said() -> None:
    with pytest.raises(LocalProtocolError, match="'u' cannot be seen: the dims of \"u\" are y, x"):
        _array("u", assembled([seen({"z": 1}, 48)], {"z": 1}), {"z": 1})


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"Cannot read the contact file .*contact\.json"):
        insitu.attach(tmp_path)


def test_the_newest_run_that_goes_on_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INSITU_CONTACT", raising=False)
    with pytest.raises(RunError, match=r"No run goes on in .*runs \(there is none\); name one"):
        find(None)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name, pid in (("melt", os.getpid()), ("dead", gone.pid), ("ended", 0)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        if pid:
            Contact(name, "tcp://127.0.0.1:1", pid, socket.gethostname(), str(folder)).write(folder / "contact.json")
    assert find(None) == Path("runs/melt/contact.json")
    assert find("runs/dead") == Path("runs/dead/contact.json")
    monkeypatch.setenv("INSITU_CONTACT", "elsewhere.json")
    assert find(None) == Path("elsewhere.json")
    monkeypatch.delenv("INSITU_CONTACT")
    (tmp_path / "runs" / "melt" / "contact.json").unlink()
    with pytest.raises(RunError, match=rf"dead: its process {gone.pid} is gone") as error:
        find(None)
    assert "ended: it has ended" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--select", "y"], "--select y: write a dim and its cells, as in y=0:64, y=::4 or x=7"),
        (["--select", "y=1:2:0"], "--select y=1:2:0: write a dim"),
        (["--save", "u.csv"], "u.csv can be no file of steps: its name ends in none of .zarr, .nc, .npz"),
        (["--save", "no/u.nc"], "u.nc cannot be written: there is no directory"),
        (["--save", "is.npz"], "is.npz is there already; remove it, or give another name"),
    ],
)
def test_what_cannot_be_saved_is_said_before_the_run_is_asked(
    arguments: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "is.npz").touch()
    done = calls.insitu("attach", "no-run", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert why in done.stderr


def test_steps_in_a_file_are_the_steps(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    steps = [
        {"u": xr.DataArray(WHOLE.astype("f4") + n, {"step": n, "time": 0.5 * n, "x": np.arange(8)}, ("y", "x"), "u")}
        for n in (3, 4)
    ]
    for name in ("u.zarr", "u.nc", "u.npz"):
        save(together(steps), tmp_path / name)
    for opened in (
        xr.open_zarr(tmp_path / "u.zarr", chunks=None, consolidated=False),
        xr.open_dataset(tmp_path / "u.nc"),
    ):
        with opened:
            xr.testing.assert_equal(opened["u"].load(), together(steps)["u"])
    with np.load(tmp_path / "u.npz") as arrays:
        np.testing.assert_array_equal(arrays["u"], together(steps)["u"])
        assert arrays["step"].tolist() == [3, 4]
    flags = together([{"u": step["u"] * 1j} for step in steps])
    with pytest.raises(RunError, match=r"Cannot write .*w\.nc: .* \.zarr takes every dtype\."):
        save(flags, tmp_path / "w.nc")
    with pytest.raises(LocalProtocolError, match=r"another shape in each step \(\(6, 8\), \(5, 8\)\)"):
        together([steps[0], {"u": steps[1]["u"][1:]}])
    other = [{**step, "v": step["u"].isel(x=slice(0, 4)).rename("v")} for step in steps]
    with pytest.raises(LocalProtocolError, match="u, v do not fit into one dataset"):
        together(other)
