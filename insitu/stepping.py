# SPDX-License-Identifier: Apache-2.0
"""A run of one's own that goes on only when it is told to, so many steps at a time: for programs that decide by what
results say, and must not depend on how fast anything is.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from insitu.console import Asked, Standing
from insitu.errors import RunError
from insitu.launching import Launched
from insitu.results import Result
from insitu.steering.actions import Receipt

#: How long a run that refuses an action has until it has ended, if that is why.
ENDING_S = 20.0


class SimulationEnded(RunError):
    """The simulation has ended or died, or the run of it."""


class Stepped:
    """The run of a configuration, which stands still after each `steps` published steps, the first ones included.

    `results` are those of `operators` that the steps before have brought, oldest first: each has one that ends where
    the run stands still, so it covers one step, or a number that divides `steps`. `settings` and `folder` are those of
    `Launched`; a wait ends after `timeout` seconds with `TimeoutError`.

    Raises `SimulationEnded` where the simulation ends before it stands still, and `RunError` where an operator has no
    such result.
    """

    def __init__(
        self,
        config: str | Path,
        settings: Mapping[str, Any],
        folder: Path,
        *,
        operators: Sequence[str],
        steps: int,
        timeout: float,
    ) -> None:
        self._steps = steps
        self._timeout = timeout
        self._launched = Launched(config, {"steering.pause_after": steps, **settings}, folder)
        self.console = self._launched.console
        self.results: dict[str, list[Result]] = {}
        self.standing = Standing(-1, -1, 0.0)
        try:
            self.console.follow(*operators)
            self._stand_still()
        except BaseException:
            self.close()
            raise

    @property
    def newest(self) -> dict[str, Result]:
        """The results that end where the run stands still, by their operators."""
        return {name: results[-1] for name, results in self.results.items()}

    def advance(self, *actions: tuple[str, Mapping[str, Any]]) -> list[Receipt]:
        """Apply actions where the run stands still, each a kind and its values, and let it go on to the next place.

        Returns their receipts. Raises `RunError` where one is refused: the run has gone on without it.
        """
        asked = [self.console.act(kind, values) for kind, values in actions]
        begun = self.console.resume(self._steps)
        receipts = [self._receipt(each) for each in (*asked, begun)]
        self._stand_still()
        return receipts[:-1]

    def close(self) -> None:
        """End the run. May be called twice."""
        self._launched.close()

    def _receipt(self, asked: Asked) -> Receipt:
        what = asked.action.describe()
        self._until(lambda: asked.settled, what)
        receipt = asked.receipt(0)
        if receipt.outcome != "applied":
            self._until(lambda: False, what, within_s=ENDING_S)
            raise RunError(receipt.describe())
        return receipt

    def _stand_still(self) -> None:
        """Wait until all ranks stand still farther on, and for the results that end there."""
        before = self.standing.boundary
        self._until(lambda: (at := self.console.standing) and at.boundary > before and self.console.ready, "its steps")
        assert self.console.standing is not None
        self.standing = self.console.standing
        self.results = {operator: self._results(operator) for operator in self.console.results}

    def _results(self, operator: str) -> list[Result]:
        results: list[Result] = []
        while not results or results[-1].provenance.last_step < self.standing.step:
            try:
                results.append(self.console.next_result(operator, self._timeout))
            except TimeoutError:
                raise RunError(
                    f"operator '{operator}' has no result that ends at step {self.standing.step}, where the run stands "
                    f"still; its window must divide the {self._steps} steps from one stand to the next."
                ) from None
        return results

    def _until(self, done: Callable[[], object], what: str, within_s: float = 0.0) -> None:
        """Wait, at most `within_s`, or as long as a step may take."""
        try:
            self.console.wait(lambda: done() or self._launched.ended, within_s or self._timeout, what)
        except TimeoutError:
            if not within_s:
                raise
        except RunError as error:
            raise SimulationEnded(f"{error}\n{self._launched.last_words}") from error
        if self._launched.ended and not done():
            raise SimulationEnded(f"The simulation has ended:\n{self._launched.last_words}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
