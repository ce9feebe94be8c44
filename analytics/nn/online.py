# SPDX-License-Identifier: Apache-2.0
"""A `Trainer` in the process of a learner: fed by steps, with a row of results now and then, checkpoints and models."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors import SafetensorError

from analytics.nn.gathering import Gathered
from analytics.nn.needs import torch
from analytics.nn.samples import Samples
from analytics.nn.saving import read_state, write_state
from analytics.nn.steps import Sampler
from analytics.nn.streaming import Streaming
from analytics.nn.training import Trainer
from analytics.nn.versions import write_version
from analytics.nn.watching import Steps, Watch
from insitu.errors import RunError
from insitu.learner import Learning, Row, Taken, Workspace
from insitu.model import Array, Step
from insitu.operator import State

#: Of the whole time, checkpoints and versions may take so much: where that is less often than asked for, so be it.
WRITING_PART = 0.1


def rehearse(threads: int) -> None:
    """Have PyTorch import what it imports only when it is first used, which takes seconds."""
    torch.set_num_threads(threads)
    number = torch.nn.Parameter(torch.zeros(1))
    (number * 2).sum().backward()
    torch.optim.Adam([number]).step()


class OnLine(Learning):
    """A network at work, in its own process."""

    def __init__(self, spec: Streaming, sampler: Sampler, workspace: Workspace, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._spec = spec
        self._workspace = workspace
        self._sampler = sampler
        self._training = spec.training
        self._trainer = self._new_trainer()
        self._gathered = Gathered()
        self._ends = False
        self._steps = Steps()
        self._rows: list[Row] = []
        self._losses: list[float] = []
        self._rate = self._validation = math.nan
        classes = spec.loss.classes
        self._confusion = np.zeros((classes, classes), np.int64) if classes is not None else None
        self._starving, self._full = Watch(), Watch()
        self._row_at = time.monotonic()
        self._written_s, self._begin_s = 0.0, time.monotonic()
        self._checkpoints = self._versions = self._resumed = 0
        #: What a checkpoint had: all steps up to the first, so many samples of the third. They may be sent once more.
        self._had = -1, 0, -1
        if workspace.checkpoint.exists():
            self._go_on()

    def _new_trainer(self) -> Trainer:
        return Trainer(self._training, self._sampler.shapes)

    def take(self, taken: Taken) -> bool:
        if not self._gathered.holds(taken.step):
            samples = self._samples(taken)
            if taken.step.sequence <= self._had[0]:
                return True
            if samples is not None and taken.step.sequence == self._had[2]:
                samples = samples[self._had[1] :]
            self._gathered.add(taken.step, samples)
            if not self._gathered.is_enough:
                return True
        self._put()
        if self._gathered:
            self._full.begin()
            return False
        return True

    def end(self) -> None:
        self._ends = True
        self._put()

    def work(self) -> bool:
        self._put()
        trained = self._trainer.batch()
        if trained is None:
            self._starving.begin()
            return False
        self._starving.end()
        self._trained(trained.batch + 1, trained.loss, trained.learning_rate)
        return True

    def rows(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def counters(self) -> dict[str, int | float]:
        return {
            "batches": self._batches,
            "samples": len(self._trainer.ledger.samples),
            "draws": self._trainer.buffer.drawn,
            "samples_bytes": self._trainer.nbytes,
            "spilled_bytes": self._trainer.buffer.spilled_nbytes,
            "checkpoints": self._checkpoints,
            "versions": self._versions,
            "resumed_at_batch": self._resumed,
            "writing_s": round(self._written_s, 3),
        }

    def close(self) -> None:
        self._validate()
        if self._losses or not math.isnan(self._validation):
            self._report()
        self._publish_last()

    @property
    def _batches(self) -> int:
        """How many batches were trained; of several trainers together."""
        return self._trainer.batches

    def _samples(self, taken: Taken) -> Samples | None:
        """Return the samples of a step, if there are any for this trainer."""
        return self._sampler.samples(taken)

    def _put(self) -> None:
        """Give the trainer what has come, as far as it has room."""
        for step in self._gathered.give(self._trainer.put):
            self._note(step)
        if not self._gathered:
            self._full.end()
            if self._ends:
                self._trainer.end()

    def _note(self, step: Step) -> None:
        """A step was taken."""
        self._steps.add(step)

    def _summed(self, values: Array, what: str) -> Array:
        """Return what all trainers have, added up; here is one."""
        return values

    def _span(self) -> tuple[Step, Step, int]:
        """Return the first and the last step since the row before, and how many were taken."""
        return self._steps.take()

    def _add_row(self, row: Row) -> None:
        self._rows.append(row)

    def _trained(self, batches: int, loss: float, learning_rate: float) -> None:
        """Do what is due after so many batches."""
        self._losses.append(loss)
        self._rate = learning_rate
        if batches % self._spec.validation.every == 0:
            self._validate()
        if batches % self._spec.report == 0:
            self._report()
        if self._is_due(batches, self._spec.publish):
            self._timed(self._publish)
        if self._is_due(batches, self._spec.checkpoint.every):
            self._timed(self._check_point)

    def _validate(self) -> None:
        held = self._trainer.heldout.held
        mine = np.array([self._trainer.validate() * held if held else 0.0, held])
        total, samples = self._summed(mine, "the validation").tolist()
        self._validation = total / samples if samples else math.nan
        if self._confusion is not None:
            self._confusion = self._summed(self._trainer.confusion(), "the validation").astype(np.int64)

    def _report(self) -> None:
        """Add a row."""
        now = time.monotonic()
        passed_s = max(now - self._row_at, 1e-9)
        self._row_at = now
        trainer, came = self._trainer, len(self._trainer.ledger.samples)
        unseen = getattr(trainer.buffer, "unseen", trainer.buffer.held)
        counts = np.array([1, came, unseen, came - trainer.heldout.held - unseen, trainer.buffer.drawn])
        parts = np.array([self._starving.take(), self._full.take()]) / passed_s
        of_all = self._summed(np.append(counts, parts), "a row").tolist()
        trainers, samples, unseen, seen, drawn, starving, full = of_all
        values: dict[str, Any] = {
            "batches": self._batches,
            "loss": float(np.mean(self._losses)) if self._losses else math.nan,
            "validation_loss": self._validation,
            "learning_rate": self._rate,
            "samples": int(samples),
            "unseen": int(unseen),
            "reuse": drawn / seen if seen > 0 else math.nan,
            "starving": starving / trainers,
            "full": full / trainers,
        }
        if self._confusion is not None:
            values["confusion"] = self._confusion
        self._losses = []
        self._add_row(Row(*self._span(), {name: np.asarray(value) for name, value in values.items()}))

    def _is_due(self, batches: int, every: int | None) -> bool:
        """Whether it is time to write something, and enough time has passed since the last."""
        if every is None or batches % every:
            return False
        return self._written_s <= WRITING_PART * (time.monotonic() - self._begin_s)

    def _timed(self, write: Callable[[], None]) -> None:
        """Write; a disk that does not take it is told of, and training goes on."""
        begin = time.monotonic()
        try:
            write()
        except RunError as error:
            self._workspace.tell(str(error))
        self._written_s += time.monotonic() - begin

    def _check_point(self) -> None:
        last = self._steps.last
        place = {"sequence": last.sequence, "index": last.index, "time": last.time}
        state = {"step": place, "validation": self._validation, "trainer": self._state()}
        try:
            self._workspace.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            write_state(self._workspace.checkpoint, state)
        except (OSError, SafetensorError) as error:
            raise RunError(f"the checkpoint cannot be written, and the one before stays: {error}") from error
        self._checkpoints += 1

    def _state(self) -> State:
        return self._trainer.state()

    def _go_on(self) -> None:
        state = read_state(self._workspace.checkpoint)
        self._trainer.load(state["trainer"])
        self._validation = float(state["validation"])
        self._steps = Steps(Step(**state["step"]))
        self._resumed = self._batches
        came = self._trainer.ledger.samples["step"]
        last = int(came[-1]) if len(came) else -1
        self._had = self._steps.last.sequence, int((came == last).sum()), last
        weights = f"batch {self._resumed}" if self._resumed else "with the weights of the others"
        self._workspace.tell(
            f"goes on from its checkpoint, {weights}, step {self._steps.last.index}; what came after that step and was "
            "in the buffer is lost"
        )

    def _publish_last(self) -> None:
        """Write the version of the end."""
        if self._batches:
            self._publish()
        else:
            self._workspace.tell(
                f"the stream ended before one batch of {self._spec.batch} samples was to be had; nothing is learned"
            )

    def _publish(self) -> None:
        trainer, last, spec = self._trainer, self._steps.last, self._spec
        about = {
            "run": self._workspace.directory.name,
            "config_hash": self._workspace.config_hash,
            "features": {"inputs": list(spec.inputs), "targets": spec.targets and list(spec.targets)},
            "sample": spec.sample,
            "batches": self._batches,
            "samples": len(trainer.ledger.samples),
            "draws": trainer.buffer.drawn,
            "held_out": trainer.heldout.held,
            "last_step": last.index,
            "time": last.time,
            "loss": self._losses[-1] if self._losses else None,
            "validation_loss": None if math.isnan(self._validation) else self._validation,
        }
        write_version(
            self._workspace.models, self._workspace.name, trainer.network(), self._training, self._sampler.shapes, about
        )
        self._versions += 1
