# SPDX-License-Identifier: Apache-2.0
"""Only what the analysis needs leaves a rank, and results of it are NumPy's on the same part of the whole field."""

import re
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.end_to_end.conftest import Start
from tests.end_to_end.programs.shapes import RANKS, STEPS, field, particles
from tests.end_to_end.runs import Left, program, total

SELECT: dict[str, Any] = {
    "uneven": {"y": "1:6:2", "x": "::3"},
    "columns": {"x": "1:-1"},
    "halo": {"y": "-1:"},
    "in_place": {"x": "2:", "step": "1::3"},
    "swapped": {"y": "0:4", "step": "::2"},
}
#: Those that are also folded elsewhere than on the staging nodes: uneven parts, columns, and some of the steps only.
ELSEWHERE = ("uneven", "columns", "in_place")
DTYPE = {"uneven": "float32", "in_place": "float16", "short": "float16"}


@pytest.fixture(scope="module")
def left(start_shared: Start) -> Left:
    operators = {f"{name}_each": total(name, over="space") for name in (*SELECT, "particles", "short")}
    operators |= {f"{name}_cells": total(name, window=STEPS) for name in SELECT}
    operators["particles_each"] |= {"where": "rank"}  # and nowhere else, so that they stay
    for where in ("rank", "node"):
        operators |= {f"{name}_each_{where}": total(name, over="space", where=where) for name in ELSEWHERE}
        operators |= {f"{name}_cells_{where}": total(name, window=3, where=where) for name in ELSEWHERE}
    variables: dict[str, Any] = {name: {"select": select} for name, select in SELECT.items()}
    for name, dtype in DTYPE.items():
        variables.setdefault(name, {})["dtype"] = dtype
    variables["particles"] = {"select": {"axis": "1:"}}
    running = start_shared(
        *program("shapes"),
        ranks=RANKS,
        nodes=2,
        operators=operators,
        variables=variables,
        staging={"transport": "ipc"},
    )
    left = running.wait()
    assert left.status == 0, left.stderr
    return left


@pytest.mark.parametrize("name", SELECT)
def test_a_selection_of_parts_of_every_kind(left: Left, name: str) -> None:
    dims = ("y", "x")
    steps, *cells = (
        slice(*[int(n) if n else None for n in SELECT[name].get(dim, ":").split(":")]) for dim in ("step", *dims)
    )
    taken = range(STEPS)[steps]
    expected = np.stack([field(name, n)[tuple(cells)] for n in taken]).astype(float)
    window, each = left.results(f"{name}_cells"), left.results(f"{name}_each")
    np.testing.assert_array_equal(window["total"], expected.sum(axis=0)[np.newaxis])
    assert (window["steps"].item(), window["dropped"].item(), window["complete"].item()) == (len(taken), 0, True)
    np.testing.assert_array_equal(each["total"], expected.sum(axis=(1, 2)))
    assert len(each["total"]) == len(taken) == left.report["variables"][name]["delivered"]


@pytest.mark.parametrize("where", ["rank", "node"])
@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_folds_elsewhere_yields_the_same(left: Left, name: str, where: str) -> None:
    xr.testing.assert_identical(
        left.results(f"{name}_each_{where}").drop_attrs(), left.results(f"{name}_each").drop_attrs()
    )
    window, parts = left.results(f"{name}_cells"), left.results(f"{name}_cells_{where}")
    assert parts["complete"][:-1].all()  # the last one is not full
    assert parts["steps"].sum() == window["steps"].item()
    np.testing.assert_array_equal(parts["total"].sum(axis=0), window["total"][0])


def test_a_selection_of_particles_keeps_all_rows(left: Left) -> None:
    steps = [np.concatenate([particles(rank, n) for rank in range(RANKS)])[:, 1:] for n in range(STEPS)]
    np.testing.assert_array_equal(left.results("particles_each")["total"], [step.sum() for step in steps])


def test_the_report_tells_the_bytes_of_each_variable(left: Left) -> None:
    def moved(name: str) -> list[int]:
        return [left.report["variables"][name][f"{what}_bytes"] for what in ("produced", "selected", "sent")]

    rows = sum(len(particles(rank, n)) for rank in range(RANKS) for n in range(STEPS))
    assert moved("in_place") == [STEPS * 42 * 8, *[len(range(1, STEPS, 3)) * 7 * 4 * 2] * 2]
    assert moved("short") == [STEPS * 42 * 2] * 3  # integers are not narrowed
    assert moved("particles") == [rows * 3 * 8, rows * 2 * 8, 0]
    assert left.report["variables"]["particles"]["because"] == ["folded on its ranks"]
    assert left.report["ranks"]["states_sent_bytes"] > 0
    assert moved("spectrum") == [STEPS * 42 * 16, 0, 0]
    assert moved("agreed") == [STEPS * 8, 0, 0]  # all ranks put it, but it is one number


def test_what_nobody_folds_does_not_leave_its_rank(left: Left) -> None:
    spectrum = left.report["variables"]["spectrum"]
    assert spectrum["delivered"] == spectrum["left_out"] == 0
    assert spectrum["because"] == ["no operator folds it"]


@pytest.mark.parametrize("codec", ["zfp", "auto"])
def test_each_codec_from_rank_to_result(start: Start, codec: str) -> None:
    cells, steps, tolerance = 40_000, 8, 1e-3 if codec == "zfp" else 0.0
    command = program("steady", "--cells", cells, "--steps", steps)
    rules = {"codec": codec} | ({"tolerance": tolerance} if tolerance else {})
    running = start(
        *command, operators={"sum": total(window=steps)}, variables={"u": rules}, staging={"transport": "tcp"}
    )
    left = running.wait()
    assert left.status == 0, left.stderr
    expected = (np.arange(cells) + np.arange(float(steps))[:, np.newaxis]).sum(axis=0)
    np.testing.assert_allclose(left.results("sum")["total"][0], expected, rtol=0, atol=steps * tolerance)
    u = left.report["variables"]["u"]
    assert u["selected_bytes"] == steps * cells * 8 == left.report["steps"]["delivered_bytes"]
    chosen = left.events("codec-chosen")
    assert {event["variable"] for event in chosen} == ({"u"} if codec == "auto" else set())
    if codec != "auto":
        assert u["sent_bytes"] < u["selected_bytes"] / 2


def test_what_only_the_simulation_can_tell_is_a_mistake_of_the_configuration(start: Start) -> None:
    """A dim that is not there, and a parameter that nobody declares."""
    left = start(
        *program("tank", "--steps", 20),
        operators={"level": total(over="space")},
        variables={"u": {"select": {"y": "1:"}}},
        steering=[{"when": "level.total > 0", "set": {"inflwo": 1}}],
    ).wait()
    assert left.status == 2, left.stderr
    for says in (
        'variables.u.select.y: the dims of "u" are x',
        'the simulation has no parameter "inflwo"; did you mean "inflow"? (it has inflow, mode)',
    ):
        assert re.search(rf"test0\.yaml:\d+: .*{re.escape(says)}", left.stderr)
        assert any(says in reason for reason in left.report["reasons"])
    assert left.report["steps"]["delivered_bytes"] == 0
    assert left.report["actions"] == {}
