# SPDX-License-Identifier: Apache-2.0
"""An operator that goes wrong is stopped and told of; its siblings and the simulation go on."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.end_to_end.conftest import Start
from tests.end_to_end.folds import Faulty
from tests.end_to_end.runs import Left, program, told, total

WHERE = [where for where in get_args(Faulty.model_fields["method"].annotation) if where != "warm_up"]
STEPS, RANKS = 30, 2


def faulty(where: str, **keys: Any) -> dict[str, Any]:
    return total(over=["step", "space"], window=10, method=where, **keys) | {"use": "tests.end_to_end.folds:Faulty"}


@pytest.fixture(scope="module")
def left(start_shared: Start) -> Left:
    operators = {
        "sum": total(window=10),
        **{f"in_{where}": faulty(where) for where in WHERE},
        "on_ranks": faulty("update") | {"where": "rank"},
    }
    running = start_shared(*program("steady", "--steps", STEPS), ranks=RANKS, nodes=2, operators=operators)
    left = running.wait()
    assert [rank["steps"] for rank in told(running.folder, RANKS)] == [STEPS] * RANKS
    return left


def test_the_siblings_and_the_simulation_go_on(left: Left) -> None:
    results = left.results("sum")
    assert results["complete"].all()
    expected = [10 * np.arange(16) + sum(range(10 * window, 10 * window + 10)) for window in range(3)]
    np.testing.assert_array_equal(results["total"], expected)
    assert left.report["steps"]["delivered"] == STEPS


def test_the_run_has_failed_and_says_which_operators_have(left: Left) -> None:
    assert left.status == 1
    assert left.report["status"] == "failed"
    for where in WHERE:
        assert any(f"in_{where}" in reason for reason in left.report["reasons"]), where
    assert any("'on_ranks': " in reason for reason in left.report["reasons"])
    assert not any("'sum'" in reason for reason in left.report["reasons"])


@pytest.mark.parametrize("where", WHERE)
def test_the_log_has_the_traceback(left: Left, where: str) -> None:
    traces = [event["traceback"] for event in left.events() if event.get("operator") == f"in_{where}"]
    assert traces
    if where not in ("state", "shape", "loudly"):
        assert any(f"ZeroDivisionError: nothing to divide by in {where}" in trace for trace in traces)


def test_each_node_says_once_that_it_stopped_an_operator(left: Left) -> None:
    said = [(event["source"], event["operator"]) for event in left.events("operator-stopped")]
    assert len(said) == len(set(said))


def test_one_that_cannot_be_prepared_ends_the_run_before_the_simulation_starts(start: Start, tmp_path: Path) -> None:
    """And before the results of the run that it was to replace are gone."""
    earlier = tmp_path / "test0" / "runs" / "test0"
    earlier.mkdir(parents=True)
    for name in ("config.yaml", "mine.txt"):
        (earlier / name).touch()
    operators = {"sum": total(), "broken": faulty("warm_up")}
    running = start(*program("steady"), operators=operators, arguments=("--force",))
    left = running.wait()
    assert left.status == 1
    assert "Operator 'broken' cannot be prepared: ZeroDivisionError: nothing to divide by in warm_up" in left.stderr
    assert "Traceback" not in left.stderr
    assert not list(running.folder.glob("begun-*"))
    assert sorted(path.name for path in earlier.iterdir()) == ["config.yaml", "mine.txt"]
    assert list(earlier.parent.iterdir()) == [earlier]
