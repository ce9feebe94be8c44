# SPDX-License-Identifier: Apache-2.0
"""One run from beginning to end: what ``insitu run`` does.

Staging first, so that nothing is missed; then the simulation; then turns of the service until every rank has ended and
every step is decided; then what the staging nodes still hold; then the report. Whatever ends a run early (Ctrl-C, the
simulation's death, a staging node's), what was folded is kept and marked incomplete, and nothing is left running. Where
the simulation was not even started, nothing is left at all.
"""

import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from insitu.config import Config, config_hash
from insitu.config.plugins import plugin_entry
from insitu.controller import network
from insitu.controller.admission import Terms
from insitu.controller.decisions import Decisions
from insitu.controller.directory import Directory, Journal
from insitu.controller.feed import Feed
from insitu.controller.progress import Progress, Snapshot
from insitu.controller.record import ActionRecord
from insitu.controller.recruiting import Recruiting
from insitu.controller.replay import Replay
from insitu.controller.report import Outcome, build_report, describe_recording, uncounted
from insitu.controller.service import Service
from insitu.controller.simulation import Simulation
from insitu.controller.sink import Sink
from insitu.errors import RunError
from insitu.pipeline import Pipeline
from insitu.results.recording import create_recording
from insitu.staging.executors import Cluster, start_cluster
from insitu.staging.hosting import MakeNode
from insitu.staging.node import StagingNode
from insitu.staging.recorder import RecordingPlan
from insitu.steering.actions import Action
from insitu.wire.addresses import toward
from insitu.wire.contact import Contact
from insitu.wire.limits import STATES_BYTES
from insitu.wire.segment import sweep
from insitu.wire.sockets import Listener, listen
from insitu.wire.steering import SteeringTerms

if TYPE_CHECKING:
    from insitu.controller.tracing import Traces

#: The controller gets headers and small states; blocks never come here.
FRAME_BYTES = STATES_BYTES
#: One turn of the service waits this long at most: how soon a dead process or Ctrl-C is noticed.
TURN_S = 0.1
#: How long staging nodes may take to start: they import Dask and NumPy, on a machine that may be busy.
STAGING_S = 60.0
#: The same of learners: PyTorch alone takes seconds to import, and many times that on a busy machine.
LEARNERS_S = 180.0
#: How long nothing may arrive before what is undecided is given up, once nobody is left who could send it.
QUIET_S = 2.0
#: How long a simulation that was asked to stop has for its current steps and its own end.
GRACE_S = 15.0
#: A wait for the staging nodes this long is said.
SAY_AFTER_S = 10.0
#: A staging node that has folded no step for so long never will: the longest fold of one batch.
STUCK_S = 600.0
#: How long staging nodes have to hand over what they have folded, when everything is to end at once.
HAND_OVER_S = 1.0
#: How long one that was sent SIGTERM has before SIGKILL.
KILL_S = 2.0


#: What accompanies a run from before its simulation starts until it has ended, given the contact file: a dashboard.
Companion = Callable[[Path], AbstractContextManager[object]]


class Run:
    """The run of one configuration, of a simulation or a `replay` of one. `execute` does it all, once.

    `actions` of an earlier run, with their boundaries, are applied again.
    """

    def __init__(
        self,
        config: Config,
        progress: Progress,
        *,
        force: bool = False,
        replay: Replay | None = None,
        actions: Sequence[tuple[int, Action]] = (),
        companion: Companion | None = None,
    ) -> None:
        self._config = config
        self._replay = replay
        self._companion = companion
        self._pipeline = Pipeline(config)
        self._actions = actions
        self._progress = progress
        self._begin = time.monotonic()
        self._first_step_s: float | None = None
        self._said: set[str] = set()
        self._force = force
        self._begun = False
        self._interrupts = 0
        self._stop_by: float | None = None
        Simulation.require(config.simulation)
        self._host = network.own_address(config)
        self.directory = Directory(Path(config.directory) / config.run)

    def execute(self) -> Outcome:
        """Run, write the report, and return how it ended.

        Raises `RunError` or `ConfigError` where it could not begin; its directory is then gone again.
        """
        with self._interruptible(), self._directory_made(), ExitStack() as stack:
            self._journal = Journal(self.directory.log)
            stack.callback(self._journal.close)
            self._start(stack)
            self._stream()
            self._finish()
            self._simulation.close()
            self._sweep()
            outcome = self._outcome()
            self._feed.end(outcome)
            self.directory.write_report(self._report(outcome))
            self.directory.write_snapshot(self._feed.snapshot(self._service))
        return outcome

    def _start(self, stack: ExitStack) -> None:
        """Bring up the controller, the staging nodes and the simulation, in this order."""
        config = self._config
        self._cluster: Cluster = stack.enter_context(start_cluster(config.staging.cluster, config.staging.nodes))
        listener, contact = self._listen(stack)
        self._traces = self._open_traces(stack)
        decisions = self._decisions = Decisions(config, self.directory.path, self._journal.write)
        self._sink = Sink(
            self.directory.results.resolve(), self._pipeline, self._cluster, self._attrs(), self._journal, decisions,
            traces=self._traces,
        )  # fmt: skip
        stack.callback(self._sink.close)
        self._feed = Feed(self._pipeline, self._sink, self._cluster.told)
        record = ActionRecord(self.directory.actions)
        stack.callback(record.close)
        self._service = Service(
            listener, self._terms(), self._pipeline.folded, config.staging.nodes,
            journal=self._journal.write, describe=self._sink.published, deliver=self._sink.put,
            release=self._sink.release, record=record, schedule=self._scheduled(), snapshot=self._feed.snapshot,
            followers=self._sink.followers, learners=self._pipeline.learners, records=bool(config.recorded),
            traces=self._traces,
        )  # fmt: skip
        self._recruiting = Recruiting(
            self._cluster, self._service.expect_node, partial(self._journal.write, "controller")
        )
        stack.callback(self._recruiting.close)
        decisions.begin(self._service.steering)
        self._service.steering.rules = decisions
        stack.callback(self._service.shut_down)
        self._progress.say("Starting the staging nodes; operators that are new to this machine are compiled first.")
        self._install(contact)
        self._until_staged()
        self.directory.begin()
        contact.write(self.directory.contact)
        stack.callback(self.directory.contact.unlink)
        if self._companion is not None:
            stack.enter_context(self._companion(self.directory.contact))
        self._simulation = Simulation(
            config.simulation, self.directory.contact, self.directory.output, self._progress.show
        )
        stack.callback(self._simulation.close)
        self._simulation.start()
        self._begun = True
        self._feed.phase = "streaming"
        if config.simulation.launcher == "external":
            where = self.directory.contact.resolve()
            self._progress.say(f"Waiting for the simulation. Start its ranks with INSITU_CONTACT={where}")

    def _open_traces(self, stack: ExitStack) -> "Traces | None":
        """Have traces leave, where they are wanted: only then the library behind them is loaded."""
        if self._config.traces is None:
            return None
        from insitu.controller.tracing import Traces

        to = self._config.traces.to
        place = to if "://" in to else str(self.directory.path / to)
        traces = Traces(self._config.run, place, self._journal.write)
        stack.callback(traces.close)
        return traces

    def _scheduled(self) -> list[tuple[int, Action]]:
        """Return the actions that are decided before any rank is there, with their boundaries, in order."""
        first = self._config.steering.pause_after
        pauses = [] if first is None or self._replay else [(first - 1, Action("pause", by="steering.pause_after"))]
        return sorted([*pauses, *self._actions], key=lambda each: each[0])

    def _staging_node(self) -> MakeNode:
        """Say how a staging node is made. Recorded steps and replayed ones are folded alike, to the same bits."""
        variables, plan = self._config.recorded, None
        if variables:
            create_recording(self.directory.recording, self._config.staging.nodes)
            plan = RecordingPlan(self.directory.recording.resolve(), variables)
        return partial(
            StagingNode, recording=plan, one_by_one=bool(plan or self._replay), learners=self._pipeline.learners,
            nodes=self._config.staging.nodes, config_hash=config_hash(self._config),
            retain_bytes=self._config.staging.retain,
        )  # fmt: skip

    def _listen(self, stack: ExitStack) -> tuple[Listener, Contact]:
        """Open the door, and say where it is and what opens it."""
        scheduler = self._cluster.scheduler
        host = self._host or toward(scheduler)
        keys = network.keys_for(self._config, host)
        listener = stack.enter_context(listen(f"tcp://{host}:*", keys, FRAME_BYTES))
        warning = network.dask_in_the_clear(scheduler) if keys else None
        if warning is not None:
            self._journal.write("controller", warning)
            self._progress.say(warning.text)
        place = str(self.directory.path.resolve())
        folds = {name: plugin_entry(operator) for name, operator in self._pipeline.folded_by_ranks.items()}
        contact = Contact(self._config.run, listener.address, os.getpid(), socket.gethostname(), place, keys, folds)
        return listener, contact

    def _terms(self) -> Terms:
        settings, buffering, steering = self._config.simulation, self._config.buffering, self._config.steering
        ranks = None if settings.launcher == "external" else settings.ranks
        return Terms(
            self._config.run,
            ranks,
            buffering.buffer,
            buffering.max_wait,
            buffering.policy,
            buffering.every or 1,
            buffering.then,
            buffering.spill if buffering.spills else 0,
            buffering.spill_directory or "",
            self._config.staging.transport,
            self._pipeline.needs,
            SteeringTerms(steering.agree, steering.max_wait, steering.max_pause, steering.in_doubt, 0),
            tuple(self._pipeline.folded_by_ranks),
            self._pipeline.stays,
            self._traces.seed if self._traces is not None else "",
            self._config.traces.every if self._config.traces is not None else 0,
            tuple(name for name, operator in self._pipeline.folded.items() if operator.where == "node"),
            self._config.staging.racks,
            buffering.free,
        )

    def _attrs(self) -> dict[str, Any]:
        return {"title": self._config.run, "source": "insitu", "config_hash": config_hash(self._config)}

    def _install(self, contact: Contact) -> None:
        """Start the staging nodes; compiling their operators may take minutes, and Ctrl-C ends the wait for it."""
        operators, memory_bytes = self._pipeline.folded, self._config.staging.memory
        self._cluster.install(contact, operators, memory_bytes, self._staging_node(), lambda: self._interrupts > 0)

    def _until_staged(self) -> None:
        """Take turns until all staging nodes are there."""
        limit_s = LEARNERS_S if self._pipeline.learners else STAGING_S
        deadline = time.monotonic() + limit_s
        while not self._service.staged or self._interrupts:
            if self._interrupts:
                raise RunError("Interrupted before the simulation was started.")
            if time.monotonic() > deadline:
                here, wanted = len(self._service.nodes), self._config.staging.nodes
                if here == wanted:
                    lacking = ", ".join(self._service.learners.lacking)
                    raise RunError(f"The processes of {lacking} did not begin within {limit_s:g} s; see log.jsonl.")
                raise RunError(
                    f"Only {here} of {wanted} staging nodes reached the controller within {limit_s:g} s; see whether "
                    "their machines reach this one, and network.interface."
                )
            self._turn()

    def _turn(self) -> None:
        self._service.turn(TURN_S)
        self._progress.update(self._snapshot())
        self._feed.note(self._service)
        tracker = self._service.tracker
        if tracker is None:
            return
        if self._feed.phase == "streaming":
            self._recruiting.look(self._service.lacking)
        if self._first_step_s is None and tracker.counts.whole:
            self._first_step_s = time.monotonic() - self._begin
        self._sink.stopped(self._service.failed)
        self._sink.turn()
        differing = self._service.steering.declared.differing.values()
        for problem in [*map(str, self._sink.unfit), *(f"Cannot be steered: {text}." for text in differing)]:
            if problem not in self._said:
                self._said.add(problem)
                self._progress.say(problem)

    def _stream(self) -> None:
        """Take turns until all ranks have ended, one way or another, and all their steps are decided."""
        ended_at: float | None = None
        while not self._service.streamed:
            self._turn()
            if self._interrupts:
                self._wind_down("Stopping the simulation; press Ctrl-C again to end it at once.", "interrupted")
            elif self._simulation.status and self._simulation.running:
                self._wind_down("A process of the simulation failed; stopping the others.", "another rank failed")
            if ended_at is None and not self._simulation.running:
                ended_at = time.monotonic()
            if self._hurried or (ended_at is not None and self._quiet_since(ended_at)):
                if self._service.tracker is None:
                    return
                stuck = ended_at is not None and self._quiet_since(ended_at + STUCK_S)
                self._service.conclude(self._why_it_ended(), wait=not (self._hurried or stuck))

    def _quiet_since(self, moment: float) -> bool:
        """Whether nothing has arrived for a while, though it could have."""
        return time.monotonic() - max(moment, self._service.moved_at) > QUIET_S

    def _why_it_ended(self) -> str:
        if self._interrupts:
            return "the run was interrupted"
        return f"the simulation ended with status {self._simulation.status}"

    @property
    def _hurried(self) -> bool:
        return self._stop_by is not None and time.monotonic() > self._stop_by

    def _wind_down(self, say: str, reason: str) -> None:
        """First ask the ranks to stop, all at the same step; after a while, or when asked again, end them."""
        if self._stop_by is None:
            self._progress.say(say)
            begun = self._service.tracker is not None
            self._stop_by = time.monotonic() + (GRACE_S if begun else 0)
            if begun:
                self._service.stop(reason)
        if self._interrupts > 1:
            self._stop_by = time.monotonic()
        if self._hurried:
            self._simulation.close(grace_s=KILL_S)

    def _finish(self) -> None:
        """Have everything folded, merged and written; let the simulation end."""
        self._sink.interrupted = bool(self._interrupts) or self._simulation.status not in (0, None)
        self._feed.note(self._service, last=True)
        self._feed.phase = "finishing"
        if self._service.tracker is not None:
            self._service.finish()
            self._drain()
        self._sink.stopped(self._service.failed)
        self._sink.close()
        while self._simulation.running and self._config.simulation.launcher != "external" and not self._hurried:
            self._turn()
            if self._interrupts:
                self._wind_down(
                    "Waiting for the simulation to end; press Ctrl-C again to end it at once.", "interrupted"
                )

    def _drain(self) -> None:
        """Wait for what the staging nodes still hold, for as long as they get on with it; say so when it takes long.

        Whoever has pressed Ctrl-C twice waits no longer than it takes where nothing is left to be folded.
        """
        begin, before, said = time.monotonic(), -1, False
        end = math.inf
        while not self._service.drained and time.monotonic() < end:
            self._turn()
            if self._interrupts > 1:
                end = min(end, time.monotonic() + HAND_OVER_S)
            folded = self._counted("folded_steps")
            done = folded + self._counted("recorded_steps") + self._service.learners.pieces
            if done != before:
                begin, before = time.monotonic(), done
            waited_s = time.monotonic() - begin
            if waited_s > SAY_AFTER_S and not said:
                said = True
                self._progress.say(f"Waiting for the staging nodes, which have folded {folded} steps so far.")
            if waited_s > STUCK_S:
                self._service.give_up_nodes(f"no step was folded for {STUCK_S:g} s")

    def _counted(self, what: str) -> int:
        """Sum what all staging nodes have counted."""
        return sum(int(node.counters.get(what, 0)) for node in self._service.nodes.values())

    def _sweep(self) -> None:
        """Remove what ranks of this machine left that were killed while they joined."""
        for rank in self._service.ranks.values():
            if rank.host == socket.gethostname() and rank.ended:
                sweep(rank.pid)

    @contextmanager
    def _directory_made(self) -> Iterator[None]:
        """Make the run's directory; where the simulation was never started, nothing in it is worth being kept."""
        self.directory.create(self._config.resolved_yaml(), force=self._force)
        try:
            yield
        finally:
            if not self._begun:
                self.directory.remove()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Count Ctrl-C and SIGTERM instead of raising wherever they hit."""

        def count(number: int, frame: FrameType | None) -> None:
            self._interrupts += 1

        signal.signal(signal.SIGINT, count)
        before = signal.signal(signal.SIGTERM, count)
        try:
            yield
        finally:
            # The process ends now, and one Ctrl-C more, of somebody impatient, must not spoil its last moments.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, before)

    def _snapshot(self) -> Snapshot:
        service = self._service
        if service.tracker is None:
            return Snapshot()
        counts = service.tracker.counts
        waits = ("wait_staging_s", "wait_network_s")
        waited = sum(float(rank.counters.get(wait, 0)) for rank in service.ranks.values() for wait in waits)
        return Snapshot(
            steps=counts.whole, dropped=counts.dropped.total(), received_bytes=counts.nbytes,
            waiting_bytes=self._counted("waiting_bytes"), waited_s=waited, windows=self._sink.rows,
        )  # fmt: skip

    def _outcome(self) -> Outcome:
        """Say how the run ended; to be asked once all that was folded is stored."""
        failures = self._failures()
        unfit = [str(problem) for problem in self._sink.unfit]
        status = "interrupted" if self._interrupts else "failed" if failures or unfit else "done"
        tail = self._simulation.tail if self._simulation.status else []
        return Outcome(status, [*unfit, *failures], tail, mistaken=bool(unfit) and not failures)

    def _failures(self) -> list[str]:
        """Say what went wrong, all but mistakes of the configuration."""
        service, failures = self._service, []
        if service.tracker is None and not self._interrupts:
            failures.append(
                "no rank ever took part: does the program make an insitu.Client(), and does INSITU_CONTACT reach it?"
            )
        if service.tracker is not None:
            counts = service.tracker.counts
            left_out = counts.left_out
            if counts.dropped and not counts.whole:
                failures.append(f"every step was dropped: {'; '.join(counts.dropped)}")
            failures += [f"variable '{name}' was left out of {n} steps: {why}" for (name, why), n in left_out.items()]
        if self._simulation.status:
            failures.append(f"the simulation ended with status {self._simulation.status}")
        failures += [f"rank {rank} is gone" for rank in service.gone]
        stopped = {**self._sink.failures, **service.failed}
        failures += [f"operator '{name}': {reason}" for name, reason in stopped.items()]
        failures += [f"{who}: {reason}" for who, reason in self._decisions.failures.items()]
        failures += [f"{where}: {reason}" for where, reason in service.unrecorded.items()]
        failures += [
            f"staging node {number} is gone"
            for number, node in service.nodes.items()
            if node.ended and number not in service.left
        ]
        return failures

    def _report(self, outcome: Outcome) -> dict[str, Any]:
        report = build_report(
            self._config, outcome, self._service, self._sink, time.monotonic() - self._begin, self._first_step_s
        )
        if (warning := uncounted(report)) is not None:
            self._journal.write("controller", warning)
        if self._config.recorded:
            report["recording"] = describe_recording(self.directory.recording, self._service)
        if self._replay is not None:
            report["replay"] = self._replay.report
        return report
