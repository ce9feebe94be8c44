# SPDX-License-Identifier: Apache-2.0
import gc
import importlib

import pytest

from insitu.kept import kept


def test_the_collector_rests_while_something_is_loaded() -> None:
    with kept():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), kept():
        importlib.import_module("no_such_plugin")
    assert gc.isenabled()


def test_who_has_switched_the_collector_off_keeps_it_so() -> None:
    gc.disable()
    try:
        with kept():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
