# SPDX-License-Identifier: Apache-2.0
"""One of several trainers of a network, in a process of its own: learns in step with the others while they are there.

Each trainer has a share of the steps, a buffer and a held-out set of its own. What it does on its own it does as
`OnLine`; a batch, a validation and a row are those of all, and each takes part in all of them, in the same order. The
first of them writes rows and versions.

**Comings and goings.** `meet` says who works together; whoever is not among them any more is waited for nowhere. A
batch that fails in the midst of it, since another is gone, is tried again with those that are left. A team that has a
new one in it is left by all after the same batch, since each says in each batch whether it has heard of it.
"""

import math
import time

import numpy as np

from analytics.nn.groups import START, Group, Torn
from analytics.nn.online import OnLine
from analytics.nn.parallel import ParallelLearner
from analytics.nn.samples import Samples
from analytics.nn.stale import StaleLearner
from analytics.nn.steps import Sampler
from analytics.nn.streaming import Streaming
from analytics.nn.training import Trainer
from insitu.learner import Row, Taken, Team, Workspace, turn
from insitu.model import Array, Step
from insitu.operator import State


class Together(OnLine):
    """A trainer among others."""

    def __init__(self, spec: Streaming, sampler: Sampler, workspace: Workspace, threads: int = 1) -> None:
        self._number, self._limit_s = workspace.process, spec.parallel.timeout
        super().__init__(spec, sampler, workspace, threads)
        self._team = Team(0, (), "")
        #: The generation of the last team that this one was in, or tried to be.
        self._generation = 0
        #: Those with whom this one is about to learn, or learns, as `_learns` says.
        self._group: Group | None = None
        self._learns = False
        self._ended = False
        self._torn: Group | None = None
        self._what = START
        self._ask(())

    def meet(self, team: Team) -> None:
        self._team = team
        if not team.members:
            self._ended = True
        elif self._learns:
            self._learner.leaving = True
        else:
            self._group = None

    @property
    def finished(self) -> bool:
        return self._ended

    def work(self) -> bool:
        self._put()
        try:
            return self._learn() if self._learns else self._gather()
        except Torn as error:
            torn = self._group
            self._part()
            self._torn, self._what = torn, error.what
            if not self._is_asked:
                self._ask(())
            return False

    def counters(self) -> dict[str, int | float]:
        found = super().counters() | {"sent_bytes": self._learner.sent_bytes, "teams": self._team.generation}
        return found | ({"staleness": self._learner.oldest} if isinstance(self._learner, StaleLearner) else {})

    def close(self) -> None:
        """Nothing is left to do: the last row and version were written before the others were let go."""
        self._workspace.meeting(self._team).unlink(missing_ok=True)

    def _new_trainer(self) -> Trainer:
        shapes = self._sampler.shapes
        which = self._training, shapes, self._number
        asynchronous = self._spec.parallel.asynchronous
        self._learner = StaleLearner(*which, self._is_done_together) if asynchronous else ParallelLearner(*which)
        return Trainer(self._training, shapes, self._learner)

    def _is_done_together(self, batches: int) -> bool:
        """Whether something is due after so many batches that all take part in, or that must not be passed over."""
        spec = self._spec
        due = (spec.validation.every, spec.report, spec.publish, spec.checkpoint.every)
        return any(every is not None and batches % every == 0 for every in due)

    @property
    def _batches(self) -> int:
        return self._learner.steps

    @property
    def _writes(self) -> bool:
        """Whether it is this one that writes what is written once: the first of those that learn together now."""
        return self._group is not None and self._number == self._group.members[0]

    def _samples(self, taken: Taken) -> Samples | None:
        samples = self._sampler.samples(taken)
        return samples if self._has_the_turn(taken.step) else None

    def _note(self, step: Step) -> None:
        self._steps.add(step, counts=self._has_the_turn(step))

    def _has_the_turn(self, step: Step) -> bool:
        """Whether a step is its own, and not one that is only looked back to."""
        return turn(step.sequence, self._spec.parallel.trainers) == self._number

    @property
    def _is_asked(self) -> bool:
        """Whether there is a team that this one is in and has not been with yet."""
        return self._team.generation > self._generation and self._number in self._team.members

    def _gather(self) -> bool:
        """Wait for the others without holding up anything, and begin when all are there."""
        if self._group is None and self._is_asked:
            self._generation, self._asked_at = self._team.generation, time.monotonic()
            meeting = self._workspace.meeting(self._team)
            meeting.parent.mkdir(parents=True, exist_ok=True)
            self._group = Group(
                meeting, self._number, self._team.members, self._limit_s, str(self._team.generation),
                self._workspace.local,
            )  # fmt: skip
        if self._group is None or self._group.absent(START):
            self._watch_the_time()
            return False
        self._group.open()
        self._learner.join(self._group)
        self._learns = True
        return True

    def _learn(self) -> bool:
        """Do one step together with the others; return whether there was one."""
        before = self._learner.steps
        rate = self._learner.rate()
        if self._trainer.batch() is None:
            self._starving.begin()
        else:
            self._starving.end()
        moved = self._learner.steps > before
        if moved:
            self._losses += self._learner.losses[:-1]
            self._trained(self._learner.steps, self._learner.losses[-1], rate)
        if self._learner.finished:
            self._end()
        elif self._learner.parting:
            self._part()
        return moved

    def _end(self) -> None:
        """All have learned all: write what comes last, and let the others go when it is written."""
        self._validate()
        if self._losses or not math.isnan(self._validation):
            self._report()
        if self._writes:
            self._publish_last()
        self._learner.group.sum(np.zeros(1), "the end")
        self._ended = True
        self._part()

    def _part(self) -> None:
        self._learner.leave()
        if self._group is not None:
            self._group.close()
        self._group, self._learns, self._torn, self._asked_at = None, False, None, time.monotonic()

    def _ask(self, missing: tuple[int, ...]) -> None:
        """Ask for a team, since there is none, or that of the last generation does not work any more."""
        self._asked_at = time.monotonic()
        self._workspace.join(self._generation, missing)

    def _watch_the_time(self) -> None:
        """Where it is time, name those who have not come, and ask for a team without them."""
        if self._ended or time.monotonic() - self._asked_at < self._limit_s:
            return
        if self._group is not None:
            self._group, self._torn, self._what = None, self._group, START
        missing = self._torn.absent(self._what) if self._torn is not None else ()
        if self._torn is not None and missing:
            self._workspace.tell(str(self._torn.missed(self._what, missing)))
        self._ask(missing)

    def _summed(self, values: Array, what: str) -> Array:
        return self._learner.group.sum(values, what)

    def _span(self) -> tuple[Step, Step, int]:
        """Return the steps that all have come past since the row before: whose turn they were has taken them."""
        came = math.inf if self._trainer.buffer.over else self._steps.last.sequence
        group = self._learner.group
        first, last, steps = self._steps.take(group.gathered(np.array(came), "a row").min())
        of_all = group.gathered(np.array([*_numbers(first), *_numbers(last), steps]), "a row")
        took = of_all[of_all[:, 6] > 0]
        if not len(took):
            return self._steps.told, self._steps.told, 0
        self._steps.told = _step(took[took[:, 3].argmax(), 3:6])
        return _step(took[took[:, 0].argmin(), :3]), self._steps.told, int(took[:, 6].sum())

    def _add_row(self, row: Row) -> None:
        if self._writes:
            super()._add_row(row)

    def _publish(self) -> None:
        if self._writes:
            super()._publish()

    def _state(self) -> State:
        state = super()._state()
        if not self._writes:  # one copy of what is the same in all
            for name in ("module", "optimizer", "scaler"):
                del state["learner"][name]
            state["learner"]["steps"] = 0
        return state


def _numbers(step: Step) -> tuple[float, float, float]:
    return step.sequence, step.index, step.time


def _step(numbers: Array) -> Step:
    return Step(int(numbers[0]), int(numbers[1]), float(numbers[2]))
