# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from insitu import registry
from tests.cli.calls import insitu

COUNT = "tests.config.folds:Count"


def test_the_list_has_a_line_for_every_operator_and_controller() -> None:
    result = insitu("operators")
    assert result.exit_code == 0
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    for name in (*registry.OPERATORS, *registry.LEARNERS, *registry.CONTROLLERS):
        assert f"\n{name} " in f"\n{result.stdout}"
    assert "not available" not in result.stdout


def test_an_operator_that_cannot_be_imported_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "OPERATORS", {"broken": "no_such_module:X", "count": COUNT})
    result = insitu("operators")
    assert result.exit_code == 0
    assert "not available: the module no_such_module cannot be imported" in result.stdout
    assert "count   Count what comes by.\n" in result.stdout


def test_a_controller_is_described_as_an_operator_is() -> None:
    result = insitu("operators", "pid")
    assert result.exit_code == 0
    assert "setpoint   r, in the units of the result; a number; required" in result.stdout


def test_one_operator_is_described_by_itself() -> None:
    result = insitu("operators", COUNT)
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert words.startswith(f"{COUNT}: Count what comes by. This is no line of a list. Keys: use {COUNT}")
    assert "bins how many bins; an integer of at least 1; default 8" in words
    assert 'range a list of 2 numbers or "auto"; default "auto"' in words
    assert "along a string; default nothing" in words
    assert "over what is reduced" in words
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_an_unknown_operator() -> None:
    result = insitu("operators", "momens")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith('no operator is called "momens"; did you mean "moments"?')


def test_the_schema_is_printed_as_json() -> None:
    result = insitu("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["title"] == "insitu configuration"


def test_a_function_is_described_by_the_keys_of_its_entry() -> None:
    result = insitu("operators", "tests.end_to_end.functions:picture")
    assert result.exit_code == 0
    assert "A function that is called for each window with an xarray.Dataset" in result.stdout
    assert "select" in result.stdout
