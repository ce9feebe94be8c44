# SPDX-License-Identifier: Apache-2.0
"""A variable that the ranks' blocks do not make up is taken out of the step, with an event that names the ranks."""

import numpy as np
import pytest
import xarray as xr

from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import Left, program, total

NAMES = ["good", "overlapping", "missing", "unlike", "stretched", "of_rank_1"]


@pytest.fixture(scope="module")
def left(start_shared: Start) -> Left:
    operators = {name: total(name, window=4) for name in NAMES[:-1]} | {
        "of_rank_1": total("of_rank_1", over="space"),
        "missing_each": total("missing", over="space"),
    }
    operators |= {f"{name}_here": total(name, window=4, where="rank") for name in ("good", "overlapping", "missing")}
    return start_shared(*program("faulty"), ranks=2, nodes=2, operators=operators).wait()


def test_the_run_goes_on_and_says_that_results_are_missing(left: Left) -> None:
    assert left.status == 1, left.stderr
    assert left.report["steps"] == left.report["steps"] | {"produced": 12, "delivered": 12, "dropped": 0}
    good = left.results("good")
    np.testing.assert_array_equal(good["total"], [np.full(8, total) for total in (6, 22, 38)])
    assert good["complete"].all()


@pytest.mark.parametrize(
    ("name", "steps", "words"),
    [
        ("overlapping", 4, ["step 4", "ranks 0 and 1 overlap"]),
        ("missing", 6, ["step 6", "4 of its 8 cells are missing", "not put by rank 1"]),
        ("unlike", 12, ["step 0", "dtype is float64 on rank 0 and float32 on rank 1"]),
        ("stretched", 12, ["step 0", "shape is (8,) on rank 0 and (9,) on rank 1"]),
        ("of_rank_1", 12, ["step 0", "a 0-d variable is rank 0's, which did not put it"]),
    ],
)
def test_each_is_counted_with_its_reason_and_named_in_the_log(
    left: Left, name: str, steps: int, words: list[str]
) -> None:
    counts = left.report["variables"][name]
    assert (counts["delivered"], counts["left_out"]) == (12 - steps, steps)
    texts = [event["text"] for event in left.events("variable-left-out") if event["variable"] == name]
    assert len(texts) == 1, texts
    assert all(word in texts[0] for word in words), texts


def test_the_windows_say_what_they_lack(left: Left) -> None:
    overlapping = left.results("overlapping")
    assert overlapping["steps"].values.tolist() == [4, 0, 4]
    assert overlapping["dropped"].values.tolist() == [0, 4, 0]
    assert overlapping["complete"].values.tolist() == [True, False, True]
    np.testing.assert_array_equal(overlapping["total"][2], np.full(8, 38))
    for name in ("good", "overlapping", "missing"):
        xr.testing.assert_identical(left.results(f"{name}_here").drop_attrs(), left.results(name).drop_attrs())
    missing = left.results("missing")
    assert missing["steps"].values.tolist() == [4, 2, 0]
    assert left.results("missing_each")["step"].values.tolist() == [0, 1, 2, 3, 4, 5]
