# SPDX-License-Identifier: Apache-2.0
"""A `Trainer` in the process of a learner: fed by steps, with a row of results now and then, checkpoints and models."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors import SafetensorError

from analytics.nn.needs import torch
from analytics.nn.samples import Samples
from analytics.nn.saving import read_state, write_state
from analytics.nn.steps import Sampler
from analytics.nn.streaming import Streaming
from analytics.nn.training import Trainer
from analytics.nn.versions import write_version
from insitu.errors import RunError
from insitu.learner import Learning, Row, Taken, Workspace
from insitu.model import Step

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
        self._trainer = Trainer(self._training, self._sampler.shapes)
        self._pending: tuple[Samples, int] | None = None
        self._steps = _Steps()
        self._rows: list[Row] = []
        self._losses: list[float] = []
        self._rate = self._validation = math.nan
        classes = spec.loss.classes
        self._confusion = np.zeros((classes, classes), np.int64) if classes is not None else None
        self._starving, self._full = _Watch(), _Watch()
        self._row_at = time.monotonic()
        self._written_s, self._begin_s = 0.0, time.monotonic()
        self._checkpoints = self._versions = self._resumed = 0
        self._newest = Step(-1, -1, math.nan)
        if workspace.checkpoint.exists():
            self._go_on()

    def take(self, taken: Taken) -> bool:
        if self._pending is None:
            samples = self._sampler.samples(taken)
            if samples is None:
                self._steps.add(taken.step)
                return True
            self._pending = samples, 0
        samples, done = self._pending
        done += self._trainer.put(_from(samples, done))
        if done < len(samples):
            self._pending = samples, done
            self._full.begin()
            return False
        self._pending = None
        self._full.end()
        self._steps.add(taken.step)
        return True

    def end(self) -> None:
        self._trainer.end()

    def work(self) -> bool:
        trained = self._trainer.batch()
        if trained is None:
            self._starving.begin()
            return False
        self._starving.end()
        self._losses.append(trained.loss)
        self._rate = trained.learning_rate
        batches = trained.batch + 1
        if batches % self._spec.validation.every == 0:
            self._validate()
        if batches % self._spec.report == 0:
            self._report()
        if self._is_due(batches, self._spec.publish):
            self._timed(self._publish)
        if self._is_due(batches, self._spec.checkpoint.every):
            self._timed(self._check_point)
        return True

    def rows(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def counters(self) -> dict[str, int | float]:
        return {
            "batches": self._trainer.batches,
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
        if self._trainer.batches:
            self._publish()
        else:
            self._workspace.tell(
                f"the stream ended before one batch of {self._spec.batch} samples was to be had; nothing is learned"
            )

    def _validate(self) -> None:
        self._validation = self._trainer.validate()
        if self._confusion is not None:
            self._confusion = self._trainer.confusion()

    def _report(self) -> None:
        """Add a row."""
        now = time.monotonic()
        passed_s = max(now - self._row_at, 1e-9)
        self._row_at = now
        trainer, counts = self._trainer, self._trainer.ledger
        unseen = getattr(trainer.buffer, "unseen", trainer.buffer.held)
        seen = len(counts.samples) - trainer.heldout.held - unseen
        values: dict[str, Any] = {
            "batches": trainer.batches,
            "loss": float(np.mean(self._losses)) if self._losses else math.nan,
            "validation_loss": self._validation,
            "learning_rate": self._rate,
            "samples": len(counts.samples),
            "unseen": unseen,
            "reuse": trainer.buffer.drawn / seen if seen > 0 else math.nan,
            "starving": self._starving.take() / passed_s,
            "full": self._full.take() / passed_s,
        }
        if self._confusion is not None:
            values["confusion"] = self._confusion
        self._losses = []
        first, last, steps = self._steps.take()
        self._rows.append(Row(first, last, steps, {name: np.asarray(value) for name, value in values.items()}))

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
        state = {"step": place, "validation": self._validation, "trainer": self._trainer.state()}
        try:
            self._workspace.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            write_state(self._workspace.checkpoint, state)
        except (OSError, SafetensorError) as error:
            raise RunError(f"the checkpoint cannot be written, and the one before stays: {error}") from error
        self._checkpoints += 1

    def _go_on(self) -> None:

        state = read_state(self._workspace.checkpoint)
        self._trainer.load(state["trainer"])
        self._validation = float(state["validation"])
        self._steps = _Steps(Step(**state["step"]))
        self._resumed = self._trainer.batches
        self._workspace.tell(
            f"goes on from its checkpoint, batch {self._resumed}, step {self._steps.last.index}; what came after that "
            "step and was in the buffer is lost"
        )

    def _publish(self) -> None:

        trainer, last, spec = self._trainer, self._steps.last, self._spec
        about = {
            "run": self._workspace.directory.name,
            "config_hash": self._workspace.config_hash,
            "features": {"inputs": list(spec.inputs), "targets": spec.targets and list(spec.targets)},
            "sample": spec.sample,
            "batches": trainer.batches,
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


class _Steps:
    """The steps since the row before."""

    def __init__(self, last: Step | None = None) -> None:
        self.last = last or Step(-1, -1, 0.0)
        self._first: Step | None = None
        self._number = 0

    def add(self, step: Step) -> None:
        self._first = self._first or step
        self.last = step
        self._number += 1

    def take(self) -> tuple[Step, Step, int]:
        found = self._first or self.last, self.last, self._number
        self._first, self._number = None, 0
        return found


class _Watch:
    """How long something lasted, all in all."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._sum_s = 0.0

    def begin(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def end(self) -> None:
        if self._since is not None:
            self._sum_s += time.monotonic() - self._since
            self._since = None

    def take(self) -> float:
        """Return the seconds since the last call."""
        now = time.monotonic()
        if self._since is not None:
            self._sum_s += now - self._since
            self._since = now
        found, self._sum_s = self._sum_s, 0.0
        return found


def _from(samples: Samples, first: int) -> Samples:
    """Return the samples from one on."""
    if not first:
        return samples

    rest = [part[first:] if isinstance(part, np.ndarray) else part for part in (samples.member, samples.place)]
    targets = None if samples.targets is None else samples.targets[first:]
    return Samples(samples.inputs[first:], targets, rest[0], samples.step, rest[1])
