# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from insitu import registry
from insitu.operator import Operator
from tests.cli.calls import insitu

COUNT = "tests.config.folds:Count"
#: Lines of a screen.
SCREEN = 40


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


@pytest.mark.parametrize("name", [*registry.OPERATORS, *registry.LEARNERS, *registry.CONTROLLERS])
def test_each_is_described_on_one_screen_and_in_full(name: str) -> None:
    screen, full = insitu("operators", name), insitu("operators", name, "--all")
    assert (screen.exit_code, full.exit_code) == (0, 0)
    lines = screen.stdout.splitlines()
    assert len(lines) <= SCREEN
    assert all(len(line) <= 80 for line in [*lines, *full.stdout.splitlines()])
    if name in registry.OPERATORS:
        kind = registry.load(name)
        assert "\nResults:\n  " in screen.stdout
        for key in kind.model_fields.keys() - Operator.model_fields.keys():
            assert f"\n  {key} " in screen.stdout
    assert "**" not in screen.stdout + full.stdout.replace("`* / % **`", "")
    assert len(full.stdout) > len(screen.stdout)


def test_a_screen_says_what_is_yielded_and_what_is_asked_for() -> None:
    words = " ".join(insitu("operators", "sobol").stdout.split())
    assert "first S = r(B, C), the correlation of the two outputs over the groups (float64, parameter, cells)" in words
    assert "parameters how many parameters the ensemble varies; an integer of at least 1; required" in words
    assert "and those of every operator: of, window, every, where, and over: member. All of it" in words


def test_one_operator_is_described_by_itself() -> None:
    result = insitu("operators", COUNT, "--all")
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
    assert "A function that is called for each window with an xarray.Dataset" in " ".join(result.stdout.split())
    assert "select" in result.stdout
