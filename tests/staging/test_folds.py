# SPDX-License-Identifier: Apache-2.0
"""From committed steps to calls of `update`: batches are as long as they may be, windows end where they must."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from insitu.config.function import Function
from insitu.model import Array, Block, Step, Variable
from insitu.operator import Batch, Operator, State
from insitu.staging.assembler import ReadyStep
from insitu.staging.folds import Failure, Folds, Yield

U = Variable("u", np.dtype("f8"), (4,), ("x",))
ATOMS = Variable("mass", np.dtype("f8"), None, ("atom",))

#: The lengths of the batches that `Total` was given, by the name of its variable.
batches: list[int] = []


class Total(Operator):
    """A sum, per cell or over all."""

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        return {"total": inputs[self.of[0]]}

    def init(self) -> State:
        return {"total": 0.0}

    def update(self, state: State, batch: Batch) -> State:
        batches.append(len(batch))
        for data in batch[self.of[0]]:
            if not np.isfinite(data).all():
                raise ValueError(f"u is {data.min()}")
            state["total"] = state["total"] + (data.copy() if self.keeps_cells else data.sum())
        return state

    def merge(self, a: State, b: State) -> State:
        return {"total": a["total"] + b["total"]}

    def finalize(self, state: State) -> dict[str, Array]:
        return {"total": np.asarray(state["total"])}


def ready(sequence: int, *data: Any, start: int = 0, variable: Variable = U) -> ReadyStep:
    blocks, first = {}, start
    for rank, values in enumerate(data):
        array = np.asarray(values, float)
        blocks[rank] = {variable.name: Block(variable, (first,), array)}
        first += len(array)
    return ReadyStep(Step(sequence, 10 * sequence, float(sequence)), blocks, {})


def folds(memory_bytes: int = 2**20, **operators: Operator) -> Folds:
    batches.clear()
    return Folds(operators, memory_bytes)


def yields(done: list[Yield | Failure]) -> list[Yield]:
    assert not [item for item in done if isinstance(item, Failure)]
    return [item for item in done if isinstance(item, Yield)]


def test_what_waits_is_one_batch_cut_at_the_windows_end() -> None:
    some = folds(sum=Total(of="u", over="step", window=5))
    done = yields(some.fold([ready(k, [k, 2 * k]) for k in range(12)]))
    assert batches == [5, 5, 2]
    assert [(item.window, item.upto) for item in done] == [(0, 4), (1, 9)]
    [last] = yields(some.finish(12))
    assert (last.window, last.entries[0].steps) == (2, 2)
    np.testing.assert_array_equal(last.entries[0].state["total"], [21, 42])


def test_nothing_is_left_open_where_the_last_step_ends_a_window() -> None:
    some = folds(sum=Total(of="u", over="step", window=5))
    assert len(yields(some.fold([ready(k, [k]) for k in range(10)]))) == 2
    assert yields(some.finish(10)) == []


def test_an_entry_says_which_steps_it_stands_for() -> None:
    [done] = yields(folds(sum=Total(of="u", over="step", window=4)).fold([ready(k, [k]) for k in range(4)]))
    [entry] = done.entries
    assert (entry.key, entry.steps, entry.first, entry.last, entry.time) == (0, 4, 0, 30, 3.0)
    assert entry.place == ((0,), (1,))


def test_each_ranks_cells_have_a_state_of_their_own() -> None:
    [done] = yields(folds(sum=Total(of="u", over="step", window=2)).fold([ready(k, [1, 2], [3, 4]) for k in range(2)]))
    assert {entry.place: entry.state["total"].tolist() for entry in done.entries} == {
        ((0,), (2,)): [2, 4],
        ((2,), (2,)): [6, 8],
    }


def test_without_cells_all_ranks_share_one_state() -> None:
    [done] = yields(
        folds(sum=Total(of="u", over=["step", "space"], window=2)).fold([ready(k, [1, 2], [3, 4]) for k in range(2)])
    )
    assert [entry.state["total"] for entry in done.entries] == [20]
    assert done.entries[0].steps == 2


def test_an_operator_that_keeps_steps_yields_each() -> None:
    [done] = yields(folds(sum=Total(of="u", over="space")).fold([ready(k, [k, k], [1]) for k in range(3)]))
    assert (done.window, done.upto) == (-1, 2)
    assert [(entry.key, entry.state["total"]) for entry in done.entries] == [(0, 1), (1, 3), (2, 5)]


def test_a_block_that_moves_cuts_the_batch_and_gets_another_state() -> None:
    some = folds(sum=Total(of="u", over="step", window=4))
    [done] = yields(some.fold([ready(k, [1, 1], start=0 if k < 2 else 2) for k in range(4)]))
    assert batches == [2, 2]
    assert sorted(entry.place for entry in done.entries) == [((0,), (2,)), ((2,), (2,))]


def test_particles_are_one_batch_though_their_number_changes() -> None:
    some = folds(sum=Total(of="mass", over=["step", "space"], window=3))
    [done] = yields(some.fold([ready(k, [1.0] * (k + 1), variable=ATOMS) for k in range(3)]))
    assert batches == [3]
    assert done.entries[0].state["total"] == 6


def test_dropped_and_absent_steps_end_windows_too_and_are_not_counted() -> None:
    some = folds(sum=Total(of="u", over="step", window=3))
    gone = ReadyStep(Step(1, -1, 0.0), {}, {})
    [done] = yields(some.fold([ready(0, [1]), gone, ready(2, [1])]))
    assert done.entries[0].steps == 2
    empty = [ReadyStep(Step(k, -1, 0.0), {}, {}) for k in range(3, 6)]
    [done] = yields(some.fold(empty))
    assert (done.window, done.entries) == (1, ())


def test_an_empty_block_has_no_cells_to_keep() -> None:
    [done] = yields(folds(sum=Total(of="u", over="step", window=1)).fold([ready(0, [], [1, 2])]))
    assert [entry.place for entry in done.entries] == [((0,), (2,))]


def test_an_operator_that_raises_is_stopped_and_its_siblings_go_on() -> None:
    some = folds(bad=Total(of="u", over="step", window=1), good=Total(of="v", over="step", window=1))
    both = ReadyStep(
        Step(0, 0, 0.0),
        {0: {"u": Block(U, (0,), np.array([np.nan])), "v": Block(U.renamed("v"), (0,), np.ones(1))}},
        {},
    )
    failure, done = some.fold([both])
    assert isinstance(failure, Failure)
    assert failure.operator == "bad"
    assert "ValueError: u is nan" in failure.reason
    assert "in update" in failure.trace
    assert isinstance(done, Yield)
    assert [item.operator for item in yields(some.fold([both]))] == ["good"]


def test_states_beyond_the_memory_stop_their_operator_with_the_cure() -> None:
    some = folds(memory_bytes=64, sum=Total(of="u", over="step", window=100))
    [failure] = some.fold([ready(0, np.ones(100))])
    assert isinstance(failure, Failure)
    assert "raise staging.memory" in failure.reason


def timed(n: int, time: float, *data: Any) -> ReadyStep:
    made = ready(n, *data)
    return ReadyStep(Step(n, n, time), made.blocks, {})


def spans(done: list[Yield]) -> list[tuple[int, int, int, bool]]:
    return [(item.window, item.since, item.upto, item.full) for item in done]


def test_windows_that_overlap_fold_each_step_once() -> None:
    some = folds(sum=Total(of="u", over="step", window=6, every=4))
    done = yields(some.fold([ready(k, [2.0**k]) for k in range(13)]))
    assert sum(batches) == 13
    assert max(batches) == 2
    assert spans(done) == [(0, 0, 5, True), (1, 4, 9, True)]
    [last] = yields(some.finish(13))
    assert spans([last]) == [(2, 8, 12, False)]
    totals = [item.entries[0].state["total"][0] for item in (*done, last)]
    assert totals == [sum(2.0**k for k in steps) for steps in (range(6), range(4, 10), range(8, 13))]


def test_windows_of_time_follow_the_steps_wherever_they_begin() -> None:
    some = folds(sum=Total(of="u", over="step", window="0.5 time"))
    times = [0.7, 0.8, 0.9 + 0.1, 3.0, 3.2]
    done = yields(some.fold([timed(k, t, [k]) for k, t in enumerate(times)])) + yields(some.finish(5))
    assert spans(done) == [(1, 0, 1, True), (2, 2, 2, True), (6, 3, 4, False)]  # none is of no step


def test_windows_of_time_that_overlap_pass_over_long_gaps() -> None:
    some = folds(sum=Total(of="u", over="step", window="0.5 time", every="0.2 time"))
    times = [0.0, 0.3, 1e9, 1e9 + 0.1]
    done = yields(some.fold([timed(k, t, [k]) for k, t in enumerate(times)]))
    assert spans(done)[:2] == [(0, 0, 1, True), (1, 1, 1, True)]
    rest = yields(some.finish(4))
    assert {item.upto for item in [*done[2:], *rest]} <= {2, 3}
    assert len(done) < 10


def test_a_step_that_was_dropped_counts_to_the_window_before_it_whose_time_is_known() -> None:
    some = folds(sum=Total(of="u", over="step", window="1 time"))
    lost = ReadyStep(Step(2, -1, 0.0), {}, {})
    done = yields(some.fold([timed(0, 0.1, [1]), timed(1, 0.9, [1]), lost, timed(3, 1.5, [1]), timed(4, 2.0, [1])]))
    assert spans(done) == [(0, 0, 2, True), (1, 2, 3, True)], "it may have been a step of either"
    assert [item.entries[0].steps for item in done] == [2, 1]


@pytest.mark.parametrize("batch", [1, 8])
def test_steps_that_were_dropped_before_a_window_of_time_are_missing_from_it_and_not_from_later_ones(
    batch: int,
) -> None:
    some = Folds({"sum": Total(of="u", over="step", window="1 time")}, 2**20)
    lost = [ReadyStep(Step(k, -1, 0.0), {}, {}) for k in (1, 2)]
    steps = [timed(0, 0.1, [1]), *lost, timed(3, 1.5, [1]), timed(4, 1.6, [1]), timed(5, 2.1, [1]), timed(6, 3.0, [1])]
    done = [item for k in range(0, len(steps), batch) for item in yields(some.fold(steps[k : k + batch]))]
    assert spans(done) == [(0, 0, 2, True), (1, 1, 4, True), (2, 5, 5, True)]


def test_a_node_that_joins_counts_steps_that_were_dropped_before_its_first_one() -> None:
    some = Folds({"sum": Total(of="u", over="step", window="1 time")}, 2**20, begin=3)
    lost = ReadyStep(Step(3, -1, 0.0), {}, {})
    done = yields(some.fold([lost, timed(4, 1.5, [1]), timed(5, 2.0, [1]), timed(6, 3.0, [1])]))
    assert spans(done) == [(1, 3, 4, True), (2, 5, 5, True)]
    some = Folds({"sum": Total(of="u", over="step", window="1 time")}, 2**20, begin=3)
    elsewhere = ReadyStep(Step(4, -1, 0.0), {}, {}, elsewhere=True)
    done = yields(some.fold([lost, elsewhere, timed(5, 1.5, [1]), timed(6, 2.0, [1])]))
    assert spans(done) == [(1, 5, 5, True)], "who had step 4 counts them"


def test_time_that_goes_back_stops_the_operator() -> None:
    some = folds(sum=Total(of="u", over="step", window="1 time"))
    [failure] = some.fold([timed(0, 5.0, [1]), timed(1, 3.0, [1])])
    assert isinstance(failure, Failure)
    assert "step 1 has time 3, which is before that of an earlier step" in failure.reason


def test_a_window_without_any_step_is_empty() -> None:
    some = folds(sum=Total(of="u", over="step", window=2, every=1))
    done = yields(some.fold([ReadyStep(Step(k, -1, 0.0), {}, {}) for k in range(4)]))
    assert [item.entries for item in done] == [(), (), ()]


def test_blocks_that_a_function_keeps_count_against_the_memory() -> None:
    keep = Function(use="tests.end_to_end.functions:whole", of=("u",), window=100, select={"x": "::2"})
    some = folds(memory_bytes=500, keep=keep)
    [done] = some.fold([ready(k, np.arange(4.0)) for k in range(10)])
    assert isinstance(done, Failure)
    assert "and the staging node has 500 for them" in done.reason
