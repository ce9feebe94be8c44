# SPDX-License-Identifier: Apache-2.0
"""One network that several processes teach by gradients that are stale within a bound, so that nobody need wait."""

import copy
import math
from collections.abc import Callable

from analytics.nn.exchanging import Exchange
from analytics.nn.learning import KEEP_EVERY
from analytics.nn.needs import torch
from analytics.nn.parallel import ParallelLearner
from analytics.nn.samples import Rows, Shapes
from analytics.nn.sequencing import Given, Sequencer, Update
from analytics.nn.specs import Training
from insitu.errors import OperatorError


class StaleLearner(ParallelLearner):
    """A `ParallelLearner` whose steps are updates (`sequencing`): each is made of the gradients that are there, and the
    gradients of a batch may be computed by weights that are ``parallel.staleness`` updates old at most.

    All make all updates, in one order: weights and optimizer are the same in each trainer behind the same update. Until
    means and deviations stay as they are (``normalise.freeze``) steps are synchronous, as they need all trainers. With
    a staleness of 0 all steps are, and the result is that of a `ParallelLearner` but for rounding. `ends_together` says
    behind which updates all are to be at the same time, for what they do together then.

    Takes part with gradients of the size of the weights, sent to the first of the group, which sends each update to
    each: of n trainers the first sends n - 1 times as much as with synchronous training. `oldest` is by how many
    updates a gradient of this one was stale at most.

    Raises `OperatorError` for a network with running means, which have no gradient.
    """

    def __init__(
        self,
        spec: Training,
        shapes: Shapes,
        number: int = 0,
        ends_together: Callable[[int], bool] = lambda step: False,
    ) -> None:
        super().__init__(spec, shapes, number)
        if names := [name for name, _ in self.module.named_buffers()]:
            raise OperatorError(
                f"parallel: async: the network keeps {names[0]} beside its weights, as batch norms do, which would be "
                "another in each trainer; take group norms, or no async"
            )
        self._ends_together = ends_together
        self._exchange: Exchange | None = None
        self._sent_before = 0
        self.oldest = 0

    def leave(self) -> None:
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        super().leave()

    def _together(self, rows: Rows) -> float:
        if self._exchange is None:
            if not self._is_united:
                return super()._together(rows)
            self._part_ways()
        assert self._exchange is not None
        given = self._given(rows)
        if not math.isfinite(given.loss):
            self.module.load_state_dict(self._good[1])
            return given.loss
        answer = self._exchange.give(given)
        self.sent_bytes = self._sent_before + self._exchange.sent_bytes
        for update in answer.updates:
            self._make(update)
        if given.samples:
            self.oldest = max(self.oldest, len(answer.updates) - 1)
        self.losses = [update.loss for update in answer.updates]
        self._all_drained, self.parting = answer.drained, answer.leaving
        return self.losses[-1] if self.losses else math.nan

    @property
    def _is_united(self) -> bool:
        return all(each.united for each in (self.inputs, self.outputs) if each is not None)

    def _part_ways(self) -> None:
        """From now on nobody waits for all: the collectives of a backward pass are over."""
        self._parallel = None
        self._sent_before = self.sent_bytes
        numbers = sum(each.numel() for each in self.module.parameters())
        sequencer = Sequencer(self.group.size, self.spec.parallel.bound, self.steps, self._ends_together)
        self._exchange = Exchange(self.group, numbers, sequencer)

    def _given(self, rows: Rows) -> Given:
        """Return the gradient of a batch by the weights that are here now."""
        drained, leaving = self._drained, self.leaving
        if not self._samples:
            return Given(0, drained=drained, leaving=leaving)
        self.module.train()
        self.optimizer.zero_grad()
        loss = self._noisy_loss_of(rows)
        value = float(loss.detach())
        if not math.isfinite(value):
            return Given(self._samples, None, value)
        (loss * self.spec.ensemble).backward()
        parts = [
            torch.zeros(each.numel()) if each.grad is None else each.grad.reshape(-1).cpu()
            for each in self.module.parameters()
        ]
        return Given(self._samples, torch.cat(parts), value, drained, leaving)

    def _make(self, update: Update) -> None:
        if self.steps % KEEP_EVERY == 0:
            self._good = (self.steps, copy.deepcopy(self.module.state_dict()))
        rate = self.spec.schedule.at(self.steps, self.spec.batch * update.trainers)
        for group in self.optimizer.param_groups:
            group["lr"] = self.spec.optimizer.learning_rate * rate
        at = 0
        for parameter in self.module.parameters():
            part = update.gradient[at : at + parameter.numel()]
            parameter.grad = part.to(self.device).view_as(parameter)
            at += parameter.numel()
        self.optimizer.step()
        self.steps += 1
