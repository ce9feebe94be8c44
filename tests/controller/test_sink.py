# SPDX-License-Identifier: Apache-2.0
"""What becomes of windows and rows: stored, or let go of, and a fault of one operator is no other's."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from insitu.controller.directory import Journal
from insitu.controller.gather import Rows, Window
from insitu.controller.sink import Sink
from insitu.errors import RunError
from insitu.model import Variable
from insitu.pipeline import Pipeline
from insitu.staging.tasks import Done
from insitu.wire.messages import Entry, Held
from tests.config.yaml_files import load

U = Variable("u", np.dtype("f8"), (4,), ("x",))
TEXT = """\
run: melt
simulation: {command: "true"}
operators:
  mean: {use: "tests.end_to_end.folds:Total", of: u, over: step, window: 2}
  each: {use: "tests.end_to_end.folds:Total", of: u, over: space}
  bad: {use: "tests.end_to_end.folds:Faulty", of: u, over: step, window: 2, method: finalize}
  worse: {use: "tests.end_to_end.folds:Faulty", of: u, over: space, method: finalize}
  unseen: {use: "tests.end_to_end.folds:Total", of: u, over: step, window: 2}
outputs:
  - of: [mean, each, bad, worse]
"""


class Workers:
    """A Dask cluster's part: says what it was asked to write and to let go of."""

    def __init__(self) -> None:
        self.released: list[str] = []
        self.written: list[tuple[str, int, int | None]] = []
        self.fault: Exception | None = None

    def write(self, recipe: Any, path: Path | None, window: int, row: int, held: Sequence[Held], *_: Any) -> Done:
        if self.fault is not None:
            raise self.fault
        self.written.append((recipe.name, window, None if path is None else row))
        return Done((), (), ())

    def row(self, recipe: Any, *_: Any) -> dict[str, Any]:
        return {key: np.full(each.shape or (), 7, each.dtype) for key, each in recipe.described.items()}

    def release(self, keys: Sequence[str]) -> None:
        self.released += keys


class Stored:
    """A sink, its workers, and what is in its store and in its journal."""

    def __init__(self, folder: Path, journal: Journal, text: str = TEXT) -> None:
        self.workers = Workers()
        self.path = folder / "results.zarr"
        self._log = folder / "log.jsonl"
        self.sink = Sink(self.path, Pipeline(load(folder, text)), self.workers, {}, journal)  # type: ignore[arg-type]

    def results(self, operator: str) -> xr.Dataset:
        with xr.open_zarr(self.path, group=operator, chunks=None) as results:
            return results.load()

    @property
    def lost(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in lines if line["kind"] == "results-lost"]


CHAINS = """\
run: melt
simulation: {command: "true"}
operators:
  mean: {use: "tests.end_to_end.folds:Total", of: u, over: step, window: 2}
  each: {use: "tests.end_to_end.folds:Total", of: u, over: space}
  means: {use: "tests.end_to_end.folds:Total", of: mean.total, over: step, window: 2, every: 1}
  again: {use: "tests.end_to_end.folds:Total", of: means.total, over: space}
  bad: {use: "tests.end_to_end.folds:Faulty", of: mean.total, over: step, method: update}
  steps: {use: "tests.end_to_end.folds:Total", of: each.total, over: step}
outputs:
  - of: [means, again, bad, steps]
"""


@pytest.fixture
def chained(tmp_path: Path) -> Iterator[Stored]:
    with ExitStack() as stack:
        journal = Journal(tmp_path / "log.jsonl")
        stack.callback(journal.close)
        made = Stored(tmp_path, journal, CHAINS)
        stack.callback(made.sink.close)
        yield made


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[Stored]:
    with ExitStack() as stack:
        journal = Journal(tmp_path / "log.jsonl")
        stack.callback(journal.close)
        made = Stored(tmp_path, journal)
        stack.callback(made.sink.close)
        yield made


def state(value: float) -> dict[str, Any]:
    return {"total": np.full(4, float(value)), "number": 2}


def window(operator: str, number: int, *held: str) -> Window:
    first = 2 * number
    entries = () if held else (Entry(number, 2, first, first + 1, 0.5, ((0,), (4,)), state(number)),)
    places = (((0,), (4,)),)
    span = (first, first + 1, True)
    keys = tuple((0, Held(operator, 0, number, *span, key, 64, 2, first, first + 1, 0.5, places)) for key in held)
    return Window(operator, number, *span, entries, keys, complete=True)


def rows(operator: str, *steps: int) -> Rows:
    one = [Entry(n, 1, n, n, float(n), None, {"total": np.asarray(float(n)), "number": 4}) for n in steps]
    return Rows(operator, tuple(one))


def test_windows_and_rows_are_stored_and_counted(stored: Stored) -> None:
    sink = stored.sink
    sink.published({"u": U}, {"u": U})
    for number in range(3):
        sink.put(window("mean", number))
    sink.put(rows("each", 0, 1, 2))
    sink.put(rows("each", 3))
    sink.close()
    np.testing.assert_array_equal(stored.results("mean")["total"], [[0.0] * 4, [1.0] * 4, [2.0] * 4])
    np.testing.assert_array_equal(stored.results("each")["total"], [0, 1, 2, 3])
    assert (sink.rows_of["mean"], sink.rows_of["each"], sink.rows) == (3, 4, 7)
    assert sink.failures == {}


def test_rows_that_wait_are_written_together(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, gate, lengths = stored.sink, threading.Event(), []
    sink.published({"u": U}, {"u": U})
    append = sink._store.append

    def slowly(results: Sequence[Any], **options: Any) -> None:
        lengths.append(len(results))
        assert gate.wait(60.0)
        append(results, **options)

    monkeypatch.setattr(sink._store, "append", slowly)
    sink.put(window("mean", 0))
    for n in range(50):
        sink.put(rows("each", n))
    gate.set()
    sink.close()
    assert lengths[0] == 1
    assert sum(lengths) == 51
    assert len(lengths) <= 3
    np.testing.assert_array_equal(stored.results("each")["total"], range(50))


@pytest.mark.parametrize("operator", ["bad", "worse"])
def test_an_operator_whose_results_cannot_be_made_is_told_once_and_the_others_go_on(
    stored: Stored, operator: str
) -> None:
    sink = stored.sink
    sink.published({"u": U}, {"u": U})
    make: Callable[[int], Window | Rows] = (
        (lambda n: window("bad", n)) if operator == "bad" else (lambda n: rows("worse", n))
    )
    for n in range(5):
        sink.put(make(n))
        sink.put(window("mean", n))
    sink.close()
    at = "in window 0: " if operator == "bad" else ""
    assert sink.failures == {operator: f"{at}ZeroDivisionError: nothing to divide by in finalize"}
    [line] = stored.lost
    assert (line["level"], line["operator"]) == ("error", operator)
    assert "Traceback" in line["traceback"]
    assert (sink.rows_of[operator], sink.rows_of["mean"]) == (0, 5)
    assert len(stored.results("mean")["window"]) == 5


def test_of_an_operator_that_is_given_up_nothing_piles_up(stored: Stored) -> None:
    sink = stored.sink
    sink.failures["each"] = "its disk is full"
    for n in range(100):
        sink.put(rows("each", n))
    assert sink._rows == {}


@pytest.mark.parametrize("cells", [4, 5000])
def test_large_states_are_written_where_they_lie_unless_the_row_is_small(stored: Stored, cells: int) -> None:
    u, large = replace(U, shape=(cells,)), cells > 4
    stored.sink.published({"u": u}, {"u": u})
    for number in range(2):
        stored.sink.put(window("mean", number, f"key-{number}"))
    stored.sink.close()
    assert stored.workers.written == [("mean", number, number if large else None) for number in range(2)]
    assert stored.workers.released == []  # the writing has let go of them
    found = stored.results("mean")
    assert found["complete"].values.tolist() == [True, True]
    np.testing.assert_array_equal(found["total"], np.nan if large else 7)


def test_large_states_that_cannot_be_written_do_not_stay(stored: Stored) -> None:
    stored.sink.published({"u": U}, {"u": U})
    stored.workers.fault = RunError("the states are lost")
    for number in range(3):
        stored.sink.put(window("mean", number, f"key-{number}"))
    stored.sink.close()
    assert stored.sink.failures == {"mean": "RunError: the states are lost"}
    assert {"key-1", "key-2"} <= set(stored.workers.released)
    assert stored.sink.rows_of["mean"] == 0


def test_large_states_that_nobody_wants_do_not_stay(stored: Stored) -> None:
    stored.sink.published({"u": U}, {"u": U})
    stored.sink.put(window("unseen", 0, "key"))
    stored.sink.put(rows("unseen", 1))
    stored.sink.close()
    assert stored.workers.released == ["key"]
    assert stored.sink.rows == 0
    assert not (stored.path / "unseen").exists()


def test_what_no_operator_can_fold_is_told_of_with_its_line_until_it_is_there(stored: Stored) -> None:
    sink = stored.sink
    sink.published({"v": U.renamed("v")}, {"v": U.renamed("v")})
    sink._writer.submit(lambda: None).result(10.0)
    assert len(sink.unfit) == 5
    assert str(sink.unfit[0]).endswith(
        'melt.yaml:4: operators.mean.of: no rank publishes a variable "u" (published are v)'
    )
    sink.published({"u": U, "v": U.renamed("v")}, {"u": U, "v": U.renamed("v")})
    sink.close()
    assert sink.unfit == []


def test_results_are_steps_of_those_that_take_them(chained: Stored) -> None:
    sink = chained.sink
    sink.published({"u": U}, {"u": U})
    for number in range(4):
        sink.put(window("mean", number))
    sink.put(rows("each", 0, 1, 2))
    sink.close()
    means = chained.results("means")
    np.testing.assert_array_equal(means["total"], [[1.0] * 4, [3.0] * 4, [5.0] * 4])
    assert (means["steps"].values.tolist(), means["last_step"].values.tolist()) == ([2, 2, 2], [3, 5, 7])
    assert means["complete"].values.tolist() == [True, True, True]
    again = chained.results("again")
    np.testing.assert_array_equal(again["total"], [4.0, 12.0, 20.0])
    assert again["step"].values.tolist() == [3, 5, 7]
    np.testing.assert_array_equal(chained.results("steps")["total"], [3.0])
    assert not (chained.path / "mean").exists()  # it is taken, and not stored


def test_who_takes_results_may_fail_alone(chained: Stored) -> None:
    sink = chained.sink
    sink.published({"u": U}, {"u": U})
    for number in range(4):
        sink.put(window("mean", number))
    sink.close()
    assert sink.failures == {"bad": "ZeroDivisionError: nothing to divide by in update"}
    assert sink.rows_of["means"] == 3


def test_a_window_without_any_step_is_missing_behind_it(chained: Stored) -> None:
    sink = chained.sink
    sink.published({"u": U}, {"u": U})
    sink.put(window("mean", 0))
    sink.put(Window("mean", 1, 2, 3, True, (), (), complete=True))
    sink.put(window("mean", 2))
    sink.close()
    means = chained.results("means")
    np.testing.assert_array_equal(means["total"], [[0.0] * 4, [2.0] * 4])
    assert means["steps"].values.tolist() == [1, 1]
    assert means["dropped"].values.tolist() == [1, 1]
    assert not means["complete"].values.any()


def test_behind_an_operator_that_was_stopped_nothing_is_complete(chained: Stored) -> None:
    sink = chained.sink
    sink.published({"u": U}, {"u": U})
    sink.put(rows("each", 0, 1))
    sink.stopped(["each"])
    sink.close()
    assert chained.results("steps")["complete"].values.tolist() == [False]
