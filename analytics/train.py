# SPDX-License-Identifier: Apache-2.0
"""Training of a network on the stream, as an entry of the YAML."""

from collections.abc import Mapping

import numpy as np

from analytics.nn.needed import fault
from analytics.nn.streaming import Streaming
from insitu.learner import Learner, Learning, Workspace, turn
from insitu.model import Variable

#: What each row holds: dtype, units, meaning.
SERIES: dict[str, tuple[str, str, str]] = {
    "batches": ("i8", "1", "batches trained so far"),
    "loss": ("f8", "1", "mean loss of the batches since the row before, each before its step"),
    "validation_loss": ("f8", "1", "loss of the samples that are held out, when last looked at"),
    "learning_rate": ("f8", "1", "learning rate of the last batch"),
    "samples": ("i8", "1", "samples that came so far"),
    "unseen": ("i8", "1", "samples in the buffer that no batch has held"),
    "reuse": ("f8", "1", "how often a sample was drawn, on average over those that were drawn at all"),
    "starving": ("f8", "1", "part of the time since the row before in which there was no batch to be had"),
    "full": ("f8", "1", "part of the time since the row before in which a step waited for room in the buffer"),
}


class Train(Streaming, Learner):
    """Trains a network on the samples of each step while the simulation runs.

    **What it learns from.** `inputs` and `targets` name variables, parameters of the simulation (``parameters.feed``),
    the same some steps before (``u[-1]``), ``time`` and coordinates (``@x``); without targets the inputs are the
    targets, as for an autoencoder. `sample` says what one sample is: a whole step, a row (a particle), or a cell
    (`analytics.nn.steps`).

    **Who.** One process; with ``parallel.trainers`` several, over the staging nodes in turn, each with a share of the
    steps (`insitu.learner.turn`), of `batch` samples, of buffer and held-out set. They learn one network, data
    parallel: in step (`analytics.nn.parallel`), or by gradients that are stale within a bound (`analytics.nn.stale`).
    One that dies is waited for by nobody, and comes in again (`analytics.nn.together`).

    **How.** Samples wait in a buffer, from which batches are drawn (`analytics.nn.buffers`: fifo, firo, reservoir).
    While it is full of samples that no batch has held, steps wait at the staging nodes, and with it, by the policy of
    the variables, the simulation. When the stream has ended the buffer drains, and training ends.

    **Results**, a row for each `report` batches: loss, validation_loss (of samples that no batch ever holds),
    learning_rate, batches, samples, unseen, reuse, starving and full; with classes also confusion, which of the samples
    that are held out are taken for which, (class, taken_for) int64. Rules may act on them, as on ``loss > 1``.

    **What stays**: ``models/NAME/VERSION/`` with the weights as safetensors and a card; the last version is that of the
    end. ``checkpoints/NAME.ckpt`` is where a process that was killed goes on.

    **Same run, same weights**: on one thread, what is learned is a function of the order of samples and batches. Other
    delays give another order; `buffer.ratio` holds it within its slack.

    A loss that is not finite stops the operator; batch and samples are named. The other operators go on.
    """

    shared_counters = frozenset({"batches", "resumed_at_batch", "staleness", "teams"})

    @property
    def processes(self) -> int:
        return self.parallel.trainers

    def takes(self, sequence: int, process: int) -> bool:
        # Of the steps after it that look back to it, too.
        return any(turn(sequence + lag, self.processes) == process for lag in self.lags)

    def fault(self) -> str | None:
        if missing := fault("train"):
            return missing
        if self.buffer.spill is not None and (unfit := self.buffer.spill.fault):
            return unfit
        if self.device.startswith("cuda"):
            from analytics.nn.learning import device
            from insitu.errors import OperatorError

            try:
                device(self.device)
            except OperatorError as error:
                return str(error)
        return None

    def warm_up(self) -> None:
        from analytics.nn.online import rehearse  # brings PyTorch, which the process of the run does without

        rehearse(self.threads)

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        self.sampler(inputs)
        found = {
            name: Variable(name, np.dtype(kind), (), (), units, text) for name, (kind, units, text) in SERIES.items()
        }
        if (classes := self.loss.classes) is not None:
            about = "held-out samples by their class and the class that they are taken for"
            dims = ("class", "taken_for")
            found["confusion"] = Variable("confusion", np.dtype("i8"), (classes, classes), dims, "1", about)
        return found

    def begin(self, inputs: Mapping[str, Variable], workspace: Workspace) -> Learning:
        from analytics.nn.online import OnLine  # as above
        from analytics.nn.together import Together

        kind = Together if self.processes > 1 else OnLine
        return kind(self, self.sampler(inputs), workspace, self.threads)
