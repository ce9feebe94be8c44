# SPDX-License-Identifier: Apache-2.0
import gc
import importlib
import sys

import pytest
from dask.utils import disable_gc

from insitu.kept import begun, keep_from_the_start, kept


def test_the_collector_rests_while_something_is_loaded() -> None:
    usual = gc.get_threshold()
    assert usual[0] > 0
    with kept():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold() == usual
    with pytest.raises(ModuleNotFoundError), kept():
        importlib.import_module("no_such_plugin")
    assert gc.get_threshold() == usual


def test_who_has_switched_the_collector_off_keeps_it_so() -> None:
    gc.disable()
    try:
        with kept():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_notes_meanwhile_whether_it_is_on_does_not_leave_it_off() -> None:
    """As `dask.array` does for its slices."""
    with kept():
        noted = disable_gc()
    with noted:
        assert not gc.isenabled()
    assert gc.isenabled()


def test_in_a_process_of_multiprocessing_it_rests_until_that_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """`test_functions.py` sees that it is on in a Dask worker of a run."""
    usual = gc.get_threshold()
    keep_from_the_start()
    assert gc.get_threshold() == usual, "this one was not"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", "...", "--multiprocessing-fork"])
    try:
        keep_from_the_start()
        assert gc.get_threshold()[0] == 0
        begun()
        assert gc.get_threshold() == usual
    finally:
        gc.set_threshold(*usual)
