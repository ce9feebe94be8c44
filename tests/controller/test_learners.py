# SPDX-License-Identifier: Apache-2.0
"""What the controller knows of a learner's processes."""

import pytest

from insitu.controller.admission import Peer
from insitu.controller.learners import Learners
from insitu.errors import RemoteProtocolError
from insitu.wire.learning import Join, LearnerHello, Meet
from insitu.wire.messages import VERSION, Finished, Message, Status
from insitu.wire.session import Link, Session, Side
from tests.learning.sums import Sums


class Pair(Sums):
    """A learner with two processes."""

    shared_counters = frozenset({"batches"})

    @property
    def processes(self) -> int:
        return 2


class Run:
    """Learners of a run: `net` has two processes, `sums` one; and what each process was sent."""

    def __init__(self) -> None:
        self.sent: dict[str, list[Message]] = {}
        self.learners = Learners(
            {"net": Pair(of="u"), "sums": Sums(of="u")}, send=self._send, deliver=_nothing, event=_nothing
        )

    def begin(self, name: str, process: int = 0) -> Peer:
        hello = LearnerHello(VERSION, "run", name, "host", 1, process)
        self.learners.require_expected(hello, "run")
        peer = Peer(b"", Session(Link.LEARNER_CONTROLLER, Side.LISTENS), f"{name}{process}", 0, "host", 1)
        self.sent[peer.name] = []
        self.learners.admit(peer, name, process)
        return peer

    def _send(self, peer: Peer, message: Message) -> None:
        self.sent[peer.name].append(message)


def _nothing(*_: object) -> None:
    """Nobody is told."""


def test_all_processes_are_waited_for_and_no_other_is_let_in() -> None:
    run = Run()
    assert run.learners.lacking == ["net", "sums"]
    run.begin("net", 1)
    run.begin("sums")
    assert run.learners.lacking == ["net"]
    run.begin("net", 0)
    assert run.learners.here
    with pytest.raises(RemoteProtocolError, match="'net' of run 'run' is not expected"):
        run.begin("net", 2)


def test_what_is_counted_is_added_up_but_for_what_all_count_alike() -> None:
    run = Run()
    for process, seconds in enumerate((0.5, 0.25)):
        run.learners.hear(run.begin("net", process), Status({"batches": 7 - process, "work_s": seconds}))
    run.learners.hear(run.begin("sums"), Status({"taken_steps": 3}))
    assert run.learners.counters == {"net": {"batches": 7, "work_s": 0.75}, "sums": {"taken_steps": 3}}
    assert run.learners.processes("net")[1] == {"batches": 6, "work_s": 0.25}
    assert run.learners.processes("sums") == []


def test_who_works_together_is_told_to_those_that_do() -> None:
    run = Run()
    first, second = run.begin("net", 0), run.begin("net", 1)
    run.learners.hear(first, Join(0, ()))
    assert run.sent["net0"] == []
    run.learners.hear(second, Join(0, ()))
    [meet] = run.sent["net0"]
    assert isinstance(meet, Meet)
    assert (meet.generation, meet.members, run.sent["net1"]) == (1, (0, 1), [meet])
    assert run.learners.lose("net", 1)  # it is started anew
    assert run.sent["net0"][1:] == [Meet(2, (0,), meet.meeting)]
    run.learners.hear(run.begin("net", 1), Join(0, ()))
    assert run.sent["net1"] == run.sent["net0"][2:] == [Meet(3, (0, 1), meet.meeting)]
    assert run.learners.restarts == {"net": 1}


def test_a_learner_is_lost_with_the_last_of_its_processes() -> None:
    run = Run()
    for process in (0, 1):
        run.begin("net", process)
    assert run.learners.lose("net", 0, for_good=True)
    assert not run.learners.lose("net", 1, for_good=True)
    run.learners.hear(run.begin("sums"), Finished(0))
    assert run.learners.drained(())
