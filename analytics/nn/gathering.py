# SPDX-License-Identifier: Apache-2.0
"""Samples of small steps, which are given to a trainer together: one by one they cost more than the network does."""

from collections import deque
from collections.abc import Callable

from analytics.nn.samples import Samples, joined
from insitu.model import Step

#: So many samples at once cost a tenth of what each costs alone, and twice as many not much less.
ENOUGH = 64
#: Large samples gain nothing by that, and take memory.
ENOUGH_BYTES = 1 << 20


class Gathered:
    """Steps with the samples that a trainer has not been given yet, in order; ``None`` of a step that has none.

    >>> import numpy as np
    >>> gathered = Gathered()
    >>> for n in range(3):
    ...     gathered.add(Step(n, n, 0.0), Samples(np.zeros((2, 1)), step=n))
    >>> [step.index for step in gathered.give(lambda samples: 5)], len(gathered)
    ([0, 1], 1)
    >>> [step.index for step in gathered.give(len)], len(gathered)
    ([2], 0)
    """

    def __init__(self) -> None:
        self._steps: deque[tuple[Step, Samples | None]] = deque()
        self._samples = self._nbytes = 0
        self._newest = -1

    def __len__(self) -> int:
        """How many steps wait, whole or in part."""
        return len(self._steps)

    @property
    def is_enough(self) -> bool:
        """Whether it is time to give them away."""
        return self._samples >= ENOUGH or self._nbytes >= ENOUGH_BYTES

    def holds(self, step: Step) -> bool:
        """Whether a step was added, be it through by now or not."""
        return step.sequence <= self._newest

    def add(self, step: Step, samples: Samples | None) -> None:
        samples = samples if samples is not None and len(samples) else None
        self._steps.append((step, samples))
        self._newest = step.sequence
        if samples is not None:
            self._samples += len(samples)
            self._nbytes += samples.inputs.nbytes + (0 if samples.targets is None else samples.targets.nbytes)

    def give(self, put: Callable[[Samples], int]) -> list[Step]:
        """Give all to `put`, which takes the first samples and says how many; return the steps that are through."""
        parts = [samples for _, samples in self._steps if samples is not None]
        taken = put(joined(parts)) if parts else 0
        self._samples -= taken
        through = []
        while self._steps:
            step, samples = self._steps[0]
            if samples is not None and len(samples) > taken:
                self._steps[0] = step, samples[taken:]
                break
            taken -= 0 if samples is None else len(samples)
            self._steps.popleft()
            through.append(step)
        if not self._steps:  # of what is left of some steps too much is said for a while, never too little
            self._nbytes = 0
        return through
