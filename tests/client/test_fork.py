# SPDX-License-Identifier: Apache-2.0
"""A simulation that forks: its children publish nothing, are told why, and leave alone what is its own.

Simulation, controller and staging node are real; the simulation is a process of its own, and its children are forks.
"""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from insitu.controller.admission import Terms
from insitu.controller.gather import Rows, Window
from insitu.controller.record import ActionRecord
from insitu.controller.service import Service
from insitu.operator import Operator
from insitu.staging import receiver as module
from insitu.staging.folder import Folder
from insitu.staging.receiver import Receiver
from insitu.wire.contact import Contact
from insitu.wire.messages import Need
from insitu.wire.segment import FOLDER, PREFIX
from insitu.wire.sockets import listen
from insitu.wire.steering import SteeringTerms
from tests.end_to_end.folds import Total
from tests.waiting import wait_until

CELLS, STEPS = 8, 6
#: Children are asked to publish at every moment, and leave by each way out. All print what they are told.
SIMULATION = f"""
import multiprocessing, os, sys
import numpy as np
import insitu
from insitu.errors import LocalProtocolError

def told(call):
    try:
        call()
    except LocalProtocolError as error:
        print(error, flush=True)
        return
    print("nothing", flush=True)

def child(*calls):
    # It is forked now. What is returned lets it go on, and waits for it.
    forked = multiprocessing.get_context("fork")
    go = forked.Event()
    process = forked.Process(target=lambda: go.wait(60) and [told(call) for call in calls])
    process.start()

    def join():
        go.set()
        process.join()
        assert process.exitcode == 0
    return join

def publish(sim, n):
    with sim.step(n) as step:
        step.put("u", np.full({CELLS}, -1e9), shape=({CELLS},))

with insitu.Client() as sim:
    for n in range({STEPS}):
        with sim.step(n) as step:
            put = child(lambda: step.put("u", np.full({CELLS}, -1e9), start=(0,), shape=({CELLS},))) if n == 1 else None
            block = step.empty("u", ({CELLS},), start=(0,), shape=({CELLS},))
            block[:] = n
            if n == 1:
                put()  # where its parent has put something meanwhile
                child(lambda: step.__exit__(None, None, None))()
            if n == 2 and not (pid := os.fork()):
                sys.exit(7)  # through the step, the client and the end of the interpreter
        if n == 2:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        if n == 3:
            child(lambda: publish(sim, n + 1), lambda: sim.close(), lambda: publish(sim, n + 1))()
"""


class Shelf:
    """Keeps nothing: the states of these tests are small."""

    def hold(self, key: str, value: object, nbytes: int) -> None:
        raise AssertionError(key)

    def held_bytes(self) -> int:
        return 0


@pytest.mark.parametrize("transport", ["shm", "ipc", "tcp"])
def test_children_of_a_simulation_publish_nothing_and_leave_it_its_memory(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "keep_pages_mapped", lambda: None)  # it is for good, and this is the tests' process
    operators: dict[str, Operator] = {"sum": Total(of="u", over="step", window=STEPS)}
    needs = (Need("u", (), "", "none", 0.0),)
    steering = SteeringTerms("promise", 1.0, 60.0, "stop", 0)
    delivered: list[Window | Rows] = []
    with ExitStack() as stack:
        listener = stack.enter_context(listen("tcp://127.0.0.1:*"))
        record = ActionRecord(tmp_path / "actions.jsonl")
        stack.callback(record.close)
        service = Service(
            listener,
            Terms("melt", 1, 1 << 20, 5.0, "block", 1, "abort", 0, "", transport, needs, steering, ()),
            operators,
            1,
            journal=lambda source, event: None,
            describe=lambda offered, whole: None,
            deliver=delivered.append,
            release=lambda held: None,
            record=record,
            snapshot=lambda service: {},
        )
        stack.callback(service.close)
        contact = Contact("melt", listener.address, os.getpid(), "n17", str(tmp_path))
        contact.write(tmp_path / "contact.json")
        receiver = Receiver(
            contact, 0, 1 << 20, lambda feed, done: Folder(feed.member, operators, 1 << 20, Shelf(), "melt-0", done)
        )
        stack.callback(receiver.close)
        wait_until(lambda: service.turn(0.0) or service.staged, what="the staging node")
        simulation = subprocess.Popen(
            [sys.executable, "-c", SIMULATION],
            env={**os.environ, "INSITU_CONTACT": str(tmp_path / "contact.json")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.callback(simulation.wait)
        stack.callback(simulation.kill)
        wait_until(lambda: service.turn(0.01) or simulation.poll() is not None, 60.0, "the simulation")
        said, wrong = simulation.communicate()
        assert simulation.returncode == 0, wrong
        assert "Traceback" not in wrong
        wait_until(lambda: service.turn(0.0) or delivered, what="the window")
    put, closed, opened, left, after = said.splitlines()
    for line in (put, closed, opened):
        assert line.startswith(f"rank 0: this client is that of process {simulation.pid}, which was forked")
    assert (left, after) == ("nothing", "nothing")
    [window] = delivered
    assert isinstance(window, Window)
    np.testing.assert_array_equal(window.entries[0].state["total"], np.full(CELLS, sum(range(STEPS))))
    assert service.gone == []
    assert list(FOLDER.glob(f"{PREFIX}{simulation.pid}-*")) == []
