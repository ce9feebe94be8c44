# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from pathlib import Path

import pytest

from insitu import registry
from insitu.errors import ConfigError
from tests.config.folds import Count


def test_module_and_class_need_no_registration() -> None:
    assert registry.load("tests.config.folds:Count") is Count
    assert registry.use_of(Count) == "tests.config.folds:Count"


def test_a_name_of_the_table_stands_for_module_and_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.OPERATORS, "count", "tests.config.folds:Count")
    assert registry.load("count") is Count
    assert registry.use_of(Count) == "count"


@pytest.mark.parametrize("name", sorted(registry.OPERATORS))
def test_every_name_of_the_table_leads_to_an_operator_and_back(name: str) -> None:
    assert registry.use_of(registry.load(name)) == name


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        ("momens", 'no operator is called "momens"; did you mean "moments"? (known are '),
        ("zzz", 'no operator is called "zzz" (known are'),
        ("", 'no operator is called "" (known are'),
        (":Count", '":Count" is no module:Class, as my_lab.ops:Vorticity would be'),
        ("tests.config.folds:", '"tests.config.folds:" is no module:Class'),
        ("tests.config.fold:Count", "the module tests.config.fold cannot be imported: ModuleNotFoundError: No module"),
        ("tests.config.folds:Cuont", "the module tests.config.folds has no Cuont"),
        ("tests.config.folds:NoOperator", "tests.config.folds:NoOperator is no operator: expected a subclass of"),
        ("insitu.registry:load", "insitu.registry:load is no operator: expected a subclass of"),
        (
            "tests.config.folds:Half",
            "tests.config.folds:Half is no complete operator: it does not define describe, finalize, merge, update",
        ),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(use: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.load(use)
    assert str(caught.value).startswith(sentence)


def test_a_module_that_fails_on_import_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugin.py").write_text("import insitu\n1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="broken_plugin cannot be imported: ZeroDivisionError: division by zero"):
        registry.load("broken_plugin:X")


def test_nothing_heavy_is_imported_at_start() -> None:
    code = "import sys, insitu.pipeline; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"analytics", "adapters", "zmq", "dask", "distributed", "numba", "zarr", "xarray"}
