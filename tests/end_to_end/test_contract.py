# SPDX-License-Identifier: Apache-2.0
"""Only what the analysis needs leaves a rank, and results of it are NumPy's on the same part of the whole field."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.end_to_end.conftest import Start
from tests.end_to_end.programs.shapes import RANKS, STEPS, field, particles
from tests.end_to_end.runs import Left, program, total

WINDOW = 4
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


def test_a_selection_is_numpys_whatever_the_ranks_and_nodes(start: Start) -> None:
    ranks = 3
    command = program("steady", "--cells", 5, "--steps", 8)
    variables = {"u": {"select": {"x": "2:-1:3"}}}
    operators = {"cells": total(window=WINDOW), "each": total(over="space")}
    left = start(*command, ranks=ranks, nodes=2, operators=operators, variables=variables).wait()
    assert left.status == 0, left.stderr
    whole = np.arange(5 * ranks) + np.arange(8.0)[:, np.newaxis]
    chosen = whole[:, 2:-1:3]
    np.testing.assert_array_equal(left.results("cells")["total"], chosen.reshape(2, WINDOW, -1).sum(axis=1))
    np.testing.assert_array_equal(left.results("each")["total"], chosen.sum(axis=1))
    assert left.report["steps"]["delivered_bytes"] == chosen.nbytes
    moved = {"produced_bytes": whole.nbytes, "selected_bytes": chosen.nbytes, "sent_bytes": chosen.nbytes}
    assert left.report["variables"]["u"].items() >= moved.items()


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


@pytest.mark.parametrize("codec", ["zfp", "auto"])
def test_each_codec_from_rank_to_result(start: Start, codec: str) -> None:
    cells, steps, tolerance = 20_000, 8, 1e-3 if codec == "zfp" else 0.0
    command = program("steady", "--cells", cells, "--steps", steps)
    rules = {"codec": codec} | ({"tolerance": tolerance} if tolerance else {})
    running = start(
        *command,
        ranks=2,
        nodes=1,
        operators={"sum": total(window=steps)},
        variables={"u": rules},
        staging={"transport": "tcp"},
    )
    left = running.wait()
    assert left.status == 0, left.stderr
    expected = (np.arange(2 * cells) + np.arange(float(steps))[:, np.newaxis]).sum(axis=0)
    np.testing.assert_allclose(left.results("sum")["total"][0], expected, rtol=0, atol=steps * tolerance)
    u = left.report["variables"]["u"]
    assert u["selected_bytes"] == steps * 2 * cells * 8 == left.report["steps"]["delivered_bytes"]
    chosen = left.events("codec-chosen")
    assert {event["variable"] for event in chosen} == ({"u"} if codec == "auto" else set())
    if codec != "auto":
        assert u["sent_bytes"] < u["selected_bytes"] / 2


def test_lent_memory_is_never_encoded(start: Start) -> None:
    command = program("steady", "--cells", 20_000, "--steps", 4)
    left = start(*command, variables={"u": {"codec": "zstd"}}).wait()
    assert left.status == 0, left.stderr
    assert left.report["variables"]["u"]["sent_bytes"] == 4 * 20_000 * 8


def test_a_dim_that_is_not_there_is_a_mistake_of_the_configuration(start: Start) -> None:
    running = start(*program("steady"), variables={"u": {"select": {"y": "1:"}}})
    left = running.wait()
    assert left.status == 2, left.stderr
    says = 'test0.yaml:17: variables.u.select.y: the dims of "u" are x'
    assert says in left.stderr
    assert any(says in reason for reason in left.report["reasons"])
    assert left.report["steps"]["delivered_bytes"] == 0
