# SPDX-License-Identifier: Apache-2.0
"""Only what the analysis needs leaves a rank, and results of it are NumPy's on the same part of the whole field."""

import re
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.end_to_end.conftest import Start
from tests.end_to_end.programs.shapes import RANKS, STEPS, field, particles
from tests.end_to_end.proxy import Proxy
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


def test_zfp_from_rank_to_result(start: Start) -> None:
    cells, steps, tolerance = 40_000, 8, 1e-3
    left = start(
        *program("steady", "--cells", cells, "--steps", steps),
        operators={"sum": total(window=steps)},
        variables={"u": {"codec": "zfp", "tolerance": tolerance}},
        staging={"transport": "tcp"},
    ).wait()
    check_codec(left, cells, steps, tolerance)
    u = left.report["variables"]["u"]
    assert u["sent_bytes"] < u["selected_bytes"] / 2
    assert left.events("codec-chosen") == []


def test_auto_takes_a_codec_on_a_slow_link_and_whatever_is_fastest_on_another(start: Start) -> None:
    """Two megabytes a second for rank 0; rank 1 has all of loopback."""
    cells, steps, rate = 40_000, 8, 2e6
    with Proxy(rate) as proxy:
        running = start(
            *program("through", proxy.port, "--cells", cells, "--steps", steps),
            ranks=2,
            operators={"sum": total(window=steps)},
            variables={"u": {"codec": "auto"}},
            staging={"transport": "tcp"},
        )
        proxy.reach(running.until("node-address").read_text())
        left = running.wait()
    check_codec(left, 2 * cells, steps, 0.0)
    chosen = {event["source"]: event for event in left.events("codec-chosen")}
    assert chosen.keys() == {"rank 0", "rank 1"}
    slow, fast = chosen["rank 0"], chosen["rank 1"]
    assert slow["codec"] in ("lz4", "zstd")
    assert 0.3 * rate < slow["link_bytes_per_s"] < 2 * rate
    assert fast["link_bytes_per_s"] > 4 * rate
    for each in (slow, fast):  # how long a byte takes, by the numbers of the machine as it was
        link, tried = each["link_bytes_per_s"], each["tried"]
        takes_s = {codec: 1 / one["bytes_per_s"] + 1 / (one["ratio"] * link) for codec, one in tried.items()}
        takes_s["none"] = 1 / link
        assert takes_s[each["codec"]] <= min(takes_s.values()) * 1.01  # they are rounded


def check_codec(left: Left, cells: int, steps: int, tolerance: float) -> None:
    """What arrived are the values that were put."""
    assert left.status == 0, left.stderr
    expected = (np.arange(cells) + np.arange(float(steps))[:, np.newaxis]).sum(axis=0)
    np.testing.assert_allclose(left.results("sum")["total"][0], expected, rtol=0, atol=steps * tolerance)
    u = left.report["variables"]["u"]
    assert u["selected_bytes"] == steps * cells * 8 == left.report["steps"]["delivered_bytes"]
    assert {event["variable"] for event in left.events("codec-chosen")} <= {"u"}


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
