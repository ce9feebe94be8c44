# SPDX-License-Identifier: Apache-2.0
"""Actions over real processes and real sockets: what everybody did is read from what each rank wrote down."""

import itertools
import signal
import time
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from insitu.console import Console
from insitu.steering.actions import Receipt
from tests.steering.conftest import Make
from tests.steering.scene import LIMIT_S, Scene
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(2 * LIMIT_S)


def feeds(it: Scene) -> list[list[tuple[int, float]]]:
    return [[(line["n"], line["feed"]) for line in it.log(rank)] for rank in range(it.size)]


def check_same_values(it: Scene, receipts: list[Receipt]) -> None:
    """In every step all ranks have used the same value: the one of the last receipt that says applied."""
    applied = [each for each in receipts if each.outcome == "applied" and "feed" in each.action.values]
    for log in feeds(it):
        for n, feed in log:
            before = [each.action.values["feed"] for each in applied if each.step is not None and each.step <= n]
            assert feed == (before[-1] if before else 0.035), (n, feed)


def test_all_ranks_take_each_value_at_the_same_step_and_a_record_gives_the_same_bits(scene: Make) -> None:
    """Three ranks, whose words to the controller are late by chance; then again from the record."""
    it = scene("first", ranks=3)
    it.begin("--stride", 10, "--pause", 0.01, delay_s=0.02, seed=1)
    run = it.console()
    run.wait(lambda: run.ready, LIMIT_S, "the ranks")
    assert list(run.parameters) == ["feed", "solver", "inlets", "u"]
    receipts = [run.steer(feed=0.001 * k).receipt(LIMIT_S) for k in range(6)]
    receipts += [run.act("perturb", {"amplitude": 0.25}).receipt(LIMIT_S), run.checkpoint().receipt(LIMIT_S)]
    receipts += [run.steer(inlets=[3.0, 1 / 3], solver="gmres").receipt(LIMIT_S)]
    receipts += [run.steer(u=numbers(2, 6)).receipt(LIMIT_S)]
    assert [receipt.outcome for receipt in receipts] == ["applied"] * 10
    assert receipts[1].old == {"feed": 0.0}
    assert receipts[1].new == {"feed": 0.001}
    assert receipts[1].action.by == "user:ada"
    assert run.stop().receipt(LIMIT_S).outcome == "applied"
    it.end(it.ranks)
    check_same_values(it, receipts)
    logs = [it.log(rank) for rank in range(3)]
    assert len({log[-1]["n"] for log in logs}) == 1, "all have stopped after the same step"
    assert [log[-1]["u"] for log in logs] == [numbers(2, 6)[:, 2 * rank : 2 * rank + 2].tolist() for rank in range(3)]
    assert all(log[-1]["checkpoints"] == [receipts[7].step] for log in logs)
    again = scene("again", ranks=3, actions=it.folder / "actions.jsonl")
    again.begin("--stride", 10, "--pause", 0.0, delay_s=0.02, seed=7)
    again.end(again.ranks)
    again.end([again.controller])
    assert [again.log(rank) for rank in range(3)] == logs
    assert [(each.action.kind, each.boundary, each.outcome) for each in again.receipts] == [
        (each.action.kind, each.boundary, each.outcome) for each in it.receipts
    ]


def numbers(*shape: int) -> "np.ndarray":
    return np.arange(float(np.prod(shape))).reshape(shape) / 7.0


def gated(it: Scene, delay_s: float | None = None) -> Console:
    """Let two ranks come to step 5, and wait there."""
    it.begin(gate=5, delay_s=delay_s)
    for rank in range(it.size):
        it.until_at(rank, 5)
    run = it.console()
    run.wait(lambda: run.ready, LIMIT_S, "the ranks")
    return run


def promise(it: Scene, rank: int) -> int:
    """Let one rank take steps until it promises what was proposed; return the step that it has promised."""
    it.until_traced("propose", rank)
    for step in range(it.log(rank)[-1]["n"] + 1, 100):
        it.open(rank, step)
        it.until_at(rank, step)
        with suppress(AssertionError):  # what was proposed was late, or came just behind the step's first look
            wait_until(lambda: it.trace("promise", rank), 0.5)
            break
    return int(it.trace("propose", rank)[-1][3])


def test_a_rank_killed_between_promise_and_commit_ends_the_action(scene: Make) -> None:
    it = scene()
    run = gated(it)
    asked = run.steer(feed=0.01)
    promise(it, 0)
    it.ranks[0].send_signal(signal.SIGKILL)
    receipt = asked.receipt(LIMIT_S)
    assert (receipt.outcome, receipt.reason) == ("refused", "rank 0: it is gone")
    assert run.steer(feed=0.01).receipt(LIMIT_S).reason == "rank 0 is gone"
    it.open(1, 1_000_000)
    it.until_at(1, 20)
    assert run.stop().receipt(LIMIT_S).outcome == "applied", "a stop does without the rank that is gone"
    it.end([it.ranks[1]])
    assert {feed for _, feed in feeds(it)[1]} == {0.035}


@pytest.mark.parametrize(("in_doubt", "stops"), [("stop", True), ("revert", False)])
def test_a_controller_killed_between_propose_and_commit_leaves_nothing_applied(
    scene: Make, in_doubt: str, stops: bool
) -> None:
    it = scene(in_doubt=in_doubt)
    run = gated(it)
    run.steer(feed=0.01)
    at = promise(it, 0)
    it.controller.send_signal(signal.SIGKILL)
    it.controller.wait()
    for rank in range(2):
        it.open(rank, at + 20)
    if stops:
        it.end(it.ranks)
        assert [log[-1][0] for log in feeds(it)] == [at, at], "both have stopped at the step that was proposed"
    else:
        for rank in range(2):
            it.until_at(rank, at + 20)
    assert {feed for log in feeds(it) for _, feed in log} == {0.035}
    assert "could not be learnt within 1 s; it is not applied here" in it.said()
    assert it.receipts == []


def test_a_controller_killed_after_the_commit_leaves_a_record_that_reads_as_torn(scene: Make) -> None:
    it = scene()
    run = gated(it, delay_s=0.0)
    run.steer(feed=0.01)
    at = promise(it, 1)
    it.proxies[1].held.set()
    promise(it, 0)
    it.until_traced("decide", 1)
    # The word to rank 0 is on its way as well; that rank has it once it has passed the step.
    it.open(0, 1_000_000)
    it.until_at(0, at + 1)
    it.controller.send_signal(signal.SIGKILL)
    it.controller.wait()
    it.open(1, 1_000_000)
    it.end([it.ranks[1]])
    assert feeds(it)[1][-1] == (at, 0.035), "who could not learn of it has applied nothing, and stopped"
    assert dict(feeds(it)[0])[at] == 0.01
    (receipt,) = it.receipts
    assert (receipt.outcome, receipt.boundary) == ("torn", at)
    assert receipt.reason == "the controller ended before it was known what became of it"


def test_a_controller_that_stands_still_too_long_is_a_link_that_does(scene: Make) -> None:
    it = scene(stays=True)
    run = gated(it)
    asked = run.steer(feed=0.01)
    at = promise(it, 0)
    it.controller.send_signal(signal.SIGSTOP)
    try:
        for rank in range(2):
            it.open(rank, 1_000_000)
        it.end(it.ranks)
    finally:
        it.controller.send_signal(signal.SIGCONT)
    assert [log[-1] for log in feeds(it)] == [(at, 0.035)] * 2, "both have applied nothing, and stopped at that step"
    assert asked.receipt(LIMIT_S).outcome == "expired"


@pytest.mark.parametrize(("in_doubt", "stops"), [("stop", True), ("revert", False)])
def test_a_link_that_stands_still_between_promise_and_commit_is_torn(scene: Make, in_doubt: str, stops: bool) -> None:
    it = scene(in_doubt=in_doubt)
    run = gated(it, delay_s=0.0)
    asked = run.steer(feed=0.01)
    at = promise(it, 1)
    it.proxies[1].held.set()
    promise(it, 0)
    it.until_traced("decide", 1)
    for rank in range(2):
        it.open(rank, 1_000_000)
    receipt = asked.receipt(LIMIT_S)
    assert (receipt.outcome, receipt.ranks, receipt.step) == ("torn", (0,), at)
    assert receipt.reason == "applied by rank 0; not applied by, for want of the decision, rank 1"
    it.proxies[1].held.clear()
    if stops:
        it.end(it.ranks)
        assert dict(feeds(it)[1])[at] == 0.035
        assert dict(feeds(it)[0])[at] == 0.01
        return
    wait_until(lambda: run.listen(0.01) or len(run.receipts) == 2, LIMIT_S, "the mending")
    mended = run.receipts[1]
    assert (mended.outcome, mended.action.by, mended.new) == ("applied", "steering.in_doubt", {"feed": 0.035})
    assert run.stop().receipt(LIMIT_S).outcome == "applied"
    it.end(it.ranks)
    logs = [dict(log) for log in feeds(it)]
    assert mended.step is not None
    assert {logs[0][n] for n in range(at, mended.step)} == {0.01}
    assert set(logs[1].values()) == {0.035}
    assert logs[0][mended.step] == 0.035
    assert logs[0].keys() == logs[1].keys()


def test_what_a_slow_rank_holds_up_is_tried_again_and_leaves_nobody_in_doubt(scene: Make) -> None:
    it = scene()
    run = gated(it)
    asked = run.steer(feed=0.01)
    promise(it, 0)
    it.open(0, 1_000)
    it.until_traced("urge", 0, number=2)
    it.open(1, 1_000)
    receipt = asked.receipt(LIMIT_S)
    assert receipt.outcome == "applied"
    run.stop().receipt(LIMIT_S)
    it.end(it.ranks)
    check_same_values(it, [receipt])
    assert not it.trace("doubt")


def test_a_pause_ends_by_itself_when_it_is_too_long(scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    it = scene(max_pause=1.5)
    it.begin()
    run = it.console()
    run.wait(lambda: run.ready, LIMIT_S, "the ranks")
    asked, later = run.steer(feed=0.05), itertools.chain([0.0], itertools.repeat(3600.0))
    with monkeypatch.context() as stopped:  # the console has been, for an hour, after its first look at the clock
        stopped.setattr("insitu.console.time", SimpleNamespace(monotonic=lambda: time.monotonic() + next(later)))
        changed = asked.receipt(LIMIT_S)
    paused = run.pause().receipt(LIMIT_S)
    assert paused.step is not None
    for rank in range(2):
        it.until_at(rank, paused.step + 1)
    assert "goes on after a pause: max_pause, 1.5 s, is over" in it.said()
    assert run.act("trate", {"every": 3}).receipt(LIMIT_S).outcome == "applied"
    held = run.pause().receipt(LIMIT_S)
    stopped = run.stop().receipt(LIMIT_S)
    assert stopped.outcome == "applied"
    assert stopped.step is not None
    assert held.step is not None
    assert stopped.step >= held.step
    it.end(it.ranks)
    assert [log[-1][0] for log in feeds(it)] == [stopped.step] * 2
    check_same_values(it, [changed])


def test_a_resume_with_steps_pauses_all_ranks_again_after_as_many_published_steps(scene: Make) -> None:
    """Three ranks, whose words to the controller are late by chance: they stand at one step, each time."""
    it = scene(ranks=3)
    it.begin("--stride", 10, delay_s=0.02, seed=3)
    run = it.console()
    run.wait(lambda: run.ready, LIMIT_S, "the ranks")
    at = run.pause().receipt(LIMIT_S)
    assert at.boundary is not None
    assert run.until_standing(LIMIT_S).step == at.step
    boundary = at.boundary
    for steps, every in ((1, 1), (7, 1), (40, 1), (3, 4), (2, 1)):
        assert run.act("trate", {"every": every}).receipt(LIMIT_S).boundary == boundary
        begun = run.resume(steps).receipt(LIMIT_S)
        assert begun.boundary == boundary
        boundary = (boundary // every + steps) * every
        asked = run.steer(feed=0.001 * steps)  # applied on the way there, or where they stand then
        there = run.until_standing(LIMIT_S, behind=begun.boundary)
        assert (there.boundary, there.step, there.time) == (boundary, 10 * boundary, 5.0 * boundary)
        assert begun.reason == f"pauses again after {steps} published steps, at boundary {boundary}"
        receipt = asked.receipt(LIMIT_S)
        assert receipt.outcome == "applied"
        assert receipt.boundary is not None
        assert begun.boundary <= receipt.boundary <= boundary
        # A rank writes a step down when it goes on behind it.
        assert {log[-1]["n"] for log in map(it.log, range(3))} == {10 * (boundary - 1)}
    refused = [run.act("resume", {"steps": 0}), run.act("resume", {"step": 1})]
    assert [each.receipt(LIMIT_S).reason for each in refused] == [
        "steps = 0 is below the minimum 1.",
        "resume: there is no argument 'step'; it takes steps.",
    ]
    run.resume(1000).receipt(LIMIT_S)
    free = run.resume().receipt(LIMIT_S)
    assert (free.outcome, free.reason) == ("applied", ""), "a resume without steps calls the coming pause off"
    assert run.stop().receipt(LIMIT_S).outcome == "applied"
    it.end(it.ranks)
    assert len({log[-1]["n"] for log in map(it.log, range(3))}) == 1
    check_same_values(it, list(run.receipts))


def test_what_is_wrong_with_an_action_is_said_and_changes_nothing(scene: Make) -> None:
    it = scene(stays=True)
    it.begin("--odd-one", 1)
    run = it.console()
    run.wait(lambda: run.ready, LIMIT_S, "the ranks")
    wrong = {
        "feed = 0.2 is above the maximum 0.1.": run.steer(feed=0.2),
        "feed = 'much' is not a number.": run.steer(feed="much"),
        "'food' is no parameter of this simulation; it declares feed, inlets, odd, solver, u.": run.steer(food=1),
        "inlets has shape (2,), the value that it is set to has (3,).": run.steer(inlets=[1, 2, 3], feed=0.01),
        "solver = 'jacobi' is none of its choices 'cg', 'gmres'.": run.steer(solver="jacobi"),
        "the ranks do not agree on 'odd': rank 0 does not declare 'odd', and others do.": run.steer(odd=2),
        "ValueError: an amplitude of 2.0 is too much": run.act("perturb", {"amplitude": 2}),
    }
    for why, asked in wrong.items():
        receipt = asked.receipt(LIMIT_S)
        assert (receipt.outcome, receipt.reason) == ("refused", why)
    torn = run.act("slip", {"who": 1}).receipt(LIMIT_S)
    assert (torn.outcome, torn.ranks) == ("torn", (0,))
    assert torn.reason == "applied by rank 0; failed on rank 1; rank 1: RuntimeError: rank 1 has slipped"
    it.end(it.ranks)  # stopped by themselves
    assert len({log[-1][0] for log in feeds(it)}) == 1
    late = run.steer(feed=0.01).receipt(LIMIT_S)
    assert (late.outcome, late.reason) == ("expired", "too late: the simulation has ended")
    assert {feed for log in feeds(it) for _, feed in log} == {0.035}
    assert {each.action.by for each in it.receipts} == {"user:ada", "steering.in_doubt"}
