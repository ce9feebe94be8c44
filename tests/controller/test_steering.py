# SPDX-License-Identifier: Apache-2.0
"""The controller's part of steering, among ranks that say what a test tells them to; no sockets."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from insitu.controller import steering as module
from insitu.controller.asked import Handle
from insitu.controller.pace import Pace
from insitu.controller.record import ActionRecord, read_record, to_replay
from insitu.controller.steering import Steering
from insitu.errors import ConfigError
from insitu.steering.actions import Action, Receipt
from insitu.steering.parameters import ParameterSpec
from insitu.wire.messages import Event, Message
from insitu.wire.steering import Answer, Decide, Declare, Propose, Reached, Standing, SteeringTerms

FEED = ParameterSpec.of("feed", 0.035, minimum=0.0, maximum=0.1)
#: Seconds on the clock, all the time.
NOW = 1.0


class Ranks:
    """A steering and its ranks, which have each passed one boundary and do nothing by themselves."""

    def __init__(self, folder: Path, ranks: int = 2, **terms: Any) -> None:
        self.said: list[tuple[int, Message]] = []
        self.journal: list[Event] = []
        self.record = ActionRecord(folder / "actions.jsonl")
        self.folder = folder
        said = {"agree": "promise", "max_wait_s": 1.0, "max_pause_s": 60.0, "in_doubt": "stop", "scheduled": 0} | terms
        schedule = said.pop("schedule", ())
        self.steering = Steering(
            SteeringTerms(**said),
            lambda rank, message: self.said.append((rank, message)),
            lambda source, event: self.journal.append(event),
            self.record,
            schedule,
        )
        self.size = ranks
        self.round = 0
        for rank in range(ranks):
            self.decided = self.steering.join(rank, ranks)
            self.steering.hear(rank, Declare("parameter", "feed", FEED.to_plain(), (), ()))
        for rank in range(ranks):
            self.steering.hear(rank, Reached(1, 0, 0.0))

    def ask(self, kind: str = "set", by: str = "test", **values: Any) -> Handle:
        handle = self.steering.ask(Action(kind, values, by=by))
        self.turn()
        return handle

    def turn(self, now: float = NOW) -> None:
        self.steering.turn(now)

    def proposed(self) -> Propose:
        """The newest attempt; all that were asked were asked the same."""
        proposals = [message for _, message in self.said if isinstance(message, Propose)]
        self.round = proposals[-1].round
        return proposals[-1]

    def answer(self, rank: int, word: str, passed: int = 1, reason: str = "", **more: Any) -> None:
        fields = {"index": passed * 10, "time": 0.5 * passed, "reason": reason, "old": {}, "waited_s": 0.0, "spare": 0}
        self.steering.hear(rank, Answer(self.round, word, passed, **(fields | more)))

    def apply(self, **more: Any) -> Propose:
        """Let all ranks promise and apply what is proposed."""
        propose = self.proposed()
        for rank in range(self.size):
            self.answer(rank, "promise")
        for rank in range(self.size):
            self.answer(rank, "applied", propose.at, **more)
        self.turn()
        return propose

    def decisions(self) -> list[tuple[int, bool]]:
        return [(rank, message.apply) for rank, message in self.said if isinstance(message, Decide)]


Make = Callable[..., Ranks]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Time stands still, so that nobody's speed is guessed from how long a test takes."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: NOW))
    made: list[Ranks] = []

    def make(**options: Any) -> Ranks:
        made.append(Ranks(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.record.close()


def test_what_all_ranks_promise_is_committed_and_has_a_receipt(make: Make) -> None:
    it = make()
    heard: list[Receipt] = []
    it.steering.listeners.append(heard.append)
    handle = it.ask(feed=0.05)
    propose = it.proposed()
    assert (propose.kind, propose.values, propose.decided) == ("set", {"feed": 0.05}, False)
    assert propose.at >= 1
    it.answer(1, "promise")
    assert it.decisions() == []
    it.answer(0, "promise")
    assert it.decisions() == [(0, True), (1, True)]
    for rank in range(2):
        it.answer(rank, "applied", 2, old={"feed": 0.035})
    receipt = handle.receipt(0)
    assert receipt.describe() == "1: set feed=0.05 (test): applied after step 20, feed 0.035 -> 0.05"
    assert (receipt.boundary, receipt.time, receipt.ranks) == (2, 1.0, (0, 1))
    assert it.steering.values == {"feed": 0.05}
    assert heard == [receipt]
    assert it.steering.counts == {"applied": 1}


def test_nothing_is_proposed_behind_the_pause_that_a_resume_leads_to(make: Make) -> None:
    it = make()
    it.ask("pause")
    at = it.apply().at
    resumed = it.ask("resume", steps=5)
    assert it.apply().at == at
    receipt = resumed.receipt(0)
    assert receipt.describe().endswith(
        f"applied after step {10 * at}, steps 5: pauses again after 5 published steps, at boundary {at + 5}"
    )
    for rank in range(2):
        it.steering.hear(rank, Reached(at + 4, 0, 0.0))
    it.steering._pace.lead = 100
    it.ask(feed=0.01)
    assert it.apply().at == at + 5
    assert it.steering.standing is None
    for rank in range(2):
        it.steering.hear(rank, Standing(at + 5, 70, 7.0))
    assert it.steering.standing == Standing(at + 5, 70, 7.0)
    it.ask("resume")
    assert it.apply().at == at + 5
    assert it.steering.standing is None


def test_one_of_so_many_steps_is_published_on_the_way_to_a_pause(make: Make) -> None:
    it = make()
    it.ask("trate", every=10)
    it.apply()
    resumed = it.ask("resume", steps=3)
    at = it.apply().at
    reason = f"pauses again after 3 published steps, at boundary {(at // 10 + 3) * 10}"
    assert resumed.receipt(0).reason == reason


def test_one_action_is_under_way_at_a_time_and_a_stop_goes_first(make: Make) -> None:
    it = make()
    handles = [it.ask(feed=0.01), it.ask(feed=0.02), it.ask("stop")]
    assert it.apply().values == {"feed": 0.01}
    assert it.proposed().kind == "stop"
    it.apply()
    assert [handle.receipt(0).outcome for handle in (handles[0], handles[2], handles[1])] == [
        "applied", "applied", "expired",
    ]  # fmt: skip
    assert handles[1].receipt(0).reason == "too late: the simulation was asked to stop"
    assert it.ask("stop").receipt(0).reason == "the simulation was asked to stop before"


def test_a_late_rank_gets_another_proposal_farther_ahead(make: Make) -> None:
    it = make()
    handle = it.ask(feed=0.01)
    first = it.proposed()
    it.answer(0, "late", passed=500)
    assert it.decisions() == [(0, False), (1, False)]
    second = it.proposed()
    assert second.round > first.round
    assert second.at >= 500
    assert not handle.done


def test_an_answer_to_an_attempt_that_is_over_means_nothing(make: Make) -> None:
    it = make()
    handle = it.ask(feed=0.01)
    it.proposed()
    old = it.round
    it.answer(0, "late", passed=500)
    it.proposed()
    it.steering.hear(1, Answer(old, "refuse", 1, 0, 0.0, "stale", {}, 0.0, 0))
    assert not handle.done
    it.apply()
    assert handle.receipt(0).outcome == "applied"


def test_whoever_urges_after_the_commit_is_told_again(make: Make) -> None:
    it = make()
    it.ask(feed=0.01)
    it.proposed()
    for rank in range(2):
        it.answer(rank, "promise")
    it.answer(1, "urge", 2)
    assert it.decisions() == [(0, True), (1, True), (1, True)]


def test_a_rank_that_refuses_is_quoted(make: Make) -> None:
    it = make()
    handle = it.ask(feed=0.01)
    it.proposed()
    it.answer(0, "promise")
    it.answer(1, "refuse", reason="it has another shape")
    assert handle.receipt(0).outcome == "refused"
    assert handle.receipt(0).reason == "rank 1: it has another shape"
    assert it.decisions() == [(0, False), (1, False)]


def test_before_all_ranks_have_taken_a_step_an_action_waits(tmp_path: Path, make: Make) -> None:
    it = make(ranks=0)
    it.steering.join(0, 1)
    handle = it.ask(feed=0.01)
    assert not it.said
    it.steering.hear(0, Declare("parameter", "feed", FEED.to_plain(), (), ()))
    it.steering.hear(0, Reached(1, 0, 0.0))
    it.turn()
    assert it.proposed().values == {"feed": 0.01}
    assert not handle.done


def test_what_finds_no_step_expires(make: Make) -> None:
    it = make()
    handle, later = it.ask(feed=0.01), it.ask(feed=0.02)
    it.proposed()
    it.turn(NOW + module.EXPIRES_S + 1)
    assert handle.receipt(0).outcome == "expired"
    assert handle.receipt(0).reason == "no step was agreed on within 600 s"
    assert it.proposed().values == {"feed": 0.02}
    assert not later.done


def test_when_the_last_rank_has_ended_all_that_waits_is_too_late(make: Make) -> None:
    it = make()
    first, second = it.ask(feed=0.01), it.ask(feed=0.02)
    it.proposed()
    for rank in range(2):
        it.answer(rank, "promise")
    for rank in range(2):
        it.steering.lose(rank, ended=True)
    assert (first.receipt(0).outcome, second.receipt(0).outcome) == ("expired", "expired")
    it.steering.close()
    assert it.steering.ask(Action("pause")).receipt(0).reason == "too late: the run is over"


@pytest.mark.parametrize(
    ("ended", "outcome", "why"), [(True, "expired", "too late: rank 1 has ended"), (False, "refused", "rank 1 is gone")]
)
def test_once_a_rank_is_missing_nothing_is_asked_of_the_others_but_to_stop(
    make: Make, ended: bool, outcome: str, why: str
) -> None:
    it = make()
    it.steering.lose(1, ended=ended)
    receipt = it.ask(feed=0.01).receipt(0)
    assert (receipt.outcome, receipt.reason) == (outcome, why)
    assert it.said == []
    it.ask("stop")
    assert [(rank, type(message)) for rank, message in it.said] == [(0, Propose)]


def test_a_rank_lost_after_the_commit_makes_it_torn_and_the_others_stop(make: Make) -> None:
    it = make(ranks=3)
    handle = it.ask(feed=0.01)
    at = it.proposed().at
    for rank in range(3):
        it.answer(rank, "promise")
    it.answer(0, "applied", at, old={"feed": 0.035})
    it.steering.lose(2, ended=False)
    it.answer(1, "applied", at, old={"feed": 0.035})
    receipt = handle.receipt(0)
    assert (receipt.outcome, receipt.ranks) == ("torn", (0, 1))
    assert receipt.reason == "applied by rank 0, 1; not known of, because it is gone, rank 2; rank 2: it is gone"
    it.turn()
    assert (it.proposed().kind, it.said[-1][0]) == ("stop", 1)
    assert [event.kind for event in it.journal] == ["action-torn"]


def test_where_doubt_is_reverted_the_old_value_is_set_on_all(make: Make) -> None:
    it = make(in_doubt="revert")
    handle = it.ask(feed=0.01)
    at = it.proposed().at
    for rank in range(2):
        it.answer(rank, "promise")
    it.answer(0, "doubt", at)
    it.answer(1, "applied", at, old={"feed": 0.035})
    assert handle.receipt(0).outcome == "torn"
    assert it.steering.values == {"feed": 0.035}
    it.turn()
    assert (it.proposed().kind, it.proposed().values) == ("set", {"feed": 0.035})


def test_a_doubt_about_what_was_not_committed_stops_all_but_tears_nothing(make: Make) -> None:
    it = make()
    handle = it.ask(feed=0.01)
    at = it.proposed().at
    it.answer(0, "promise")
    it.answer(0, "doubt", at)
    assert not handle.done
    it.steering.lose(0, ended=True)
    assert handle.receipt(0).outcome == "expired"
    it.turn()
    assert (it.proposed().kind, it.said[-1][0]) == ("stop", 1)


def test_a_paused_simulation_is_changed_where_it_stands(make: Make) -> None:
    it = make()
    it.ask("pause")
    at = it.apply().at
    it.ask(feed=0.02)
    assert it.proposed().at == at
    it.apply()
    it.ask("resume")
    assert it.apply().at == at
    for rank in range(2):
        it.steering.hear(rank, Reached(at + 5, 0, 0.0))
    it.ask(feed=0.03)
    assert it.proposed().at > at


def test_with_mpi_rank_0_speaks_for_all(make: Make) -> None:
    it = make(ranks=3, agree="mpi")
    handle = it.ask(feed=0.02)
    assert [(rank, message.at) for rank, message in it.said if isinstance(message, Propose)] == [(0, -1)]
    it.proposed()
    it.answer(0, "promise")
    for rank in range(3):
        it.answer(rank, "applied", 7)
    assert handle.receipt(0).outcome == "applied"
    assert handle.receipt(0).boundary == 7


def test_requests_come_from_any_thread_and_callbacks_in_the_controllers(make: Make) -> None:
    it = make()
    handles: list[Handle] = []
    threads = [
        threading.Thread(target=lambda k=k: handles.append(it.steering.ask(Action("set", {"feed": 0.001 * k}))))
        for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    called: list[tuple[str, threading.Thread]] = []
    for handle in handles:
        handle.then(lambda receipt: called.append((receipt.outcome, threading.current_thread())))
    with pytest.raises(TimeoutError, match="it is still under way"):
        handles[0].receipt(0)
    it.turn()
    for _ in handles:
        it.apply()
    assert called == [("applied", threading.main_thread())] * 8
    assert sorted(receipt.action.id for receipt in read_record(it.folder / "actions.jsonl")) == list(range(1, 9))
    late: list[Receipt] = []
    handles[0].then(late.append)
    assert late == [handles[0].receipt(0)]


def test_a_commit_without_a_receipt_reads_as_torn(make: Make) -> None:
    """As it does when the controller is killed between the two."""
    it = make()
    it.ask(feed=0.01)
    it.apply()
    it.ask(feed=0.02)
    at = it.proposed().at
    for rank in range(2):
        it.answer(rank, "promise")
    it.record.close()
    with (it.folder / "actions.jsonl").open("a") as file:
        file.write('{"id": 3, "kind": "se')  # it was killed while it wrote
    first, second = read_record(it.folder / "actions.jsonl")
    assert (first.outcome, second.outcome, second.boundary) == ("applied", "torn", at)
    assert second.reason == "the controller ended before it was known what became of it"
    actions, notes = to_replay(it.folder / "actions.jsonl")
    assert [action.values for _, action in actions] == [{"feed": 0.01}]
    assert notes == ["action 2 (set feed=0.02) was torn and is left out: the run may go another way."]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]\n{}\n", "1: [] is no action; give"),
        ("{\n{}\n", "1: is no JSON"),
        ('{"kind": 3}\n', "1: {'kind': 3, 'values': {}} is no"),
        ('{"kind": "set", "outcome": "applied", "id": 1}\n', "has no boundary at which it was applied"),
    ],
)
def test_a_file_that_is_no_record_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "actions.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        to_replay(path)
    assert why in str(error.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        to_replay(tmp_path / "none.jsonl")


def test_recorded_actions_are_told_to_each_rank_that_joins(make: Make) -> None:
    it = make(schedule=[(3, Action("set", {"feed": 0.01}, by="user:ada")), (9, Action("stop"))])
    assert [(each.at, each.kind, each.decided) for each in it.decided] == [(3, "set", True), (9, "stop", True)]
    it.round = 1
    for rank in range(2):
        it.answer(rank, "applied", 3, old={"feed": 0.035})
    assert it.steering.values == {"feed": 0.01}
    for rank in range(2):
        it.steering.lose(rank, ended=True)
    outcomes = [(each.action.by, each.outcome, each.boundary) for each in read_record(it.folder / "actions.jsonl")]
    assert outcomes == [("user:ada", "applied", 3), ("", "expired", None)]


def test_the_lead_grows_when_ranks_wait_and_shrinks_when_all_know_early() -> None:
    pace = Pace()
    pace.was_applied(waited_s=0.01, spare=0)
    pace.was_applied(waited_s=0.01, spare=0)
    assert pace.lead == 3
    pace.was_late()
    assert pace.lead == 6
    for _ in range(8):
        pace.was_applied(waited_s=0.0, spare=4)
    assert pace.lead == 1


class Judged:
    """Rules that do nothing but be on or off."""

    def __init__(self, *names: str) -> None:
        self.switches = dict.fromkeys(names, True)

    def switch(self, switches: Mapping[str, bool]) -> None:
        self.switches |= switches


def test_rules_are_switched_without_asking_any_rank(make: Make) -> None:
    ranks = make()
    ranks.steering.rules = judged = Judged("cool", "end")
    said, version = len(ranks.said), ranks.steering.declared.version
    receipt = ranks.ask("rules", cool=False).receipt(0)
    assert (receipt.outcome, receipt.old, receipt.new) == ("applied", {"cool": True}, {"cool": False})
    assert judged.switches == {"cool": False, "end": True}
    assert len(ranks.said) == said
    assert ranks.steering.declared.version > version
    assert {name: spec.default for name, spec in ranks.steering.switches.items()} == judged.switches
    ranks.steering.close()
    assert to_replay(ranks.folder / "actions.jsonl") == ([], [])


@pytest.mark.parametrize(
    ("values", "why"),
    [({"cold": False}, "no argument 'cold'; it takes cool"), ({"cool": 3}, "cool"), ({}, "give it a rule of this run")],
)
def test_what_is_no_switch_of_a_rule_is_refused(make: Make, values: dict[str, Any], why: str) -> None:
    ranks = make()
    ranks.steering.rules = Judged("cool")
    receipt = ranks.ask("rules", **values).receipt(0)
    assert receipt.outcome == "refused"
    assert why in receipt.reason
