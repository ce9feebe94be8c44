# SPDX-License-Identifier: Apache-2.0
"""A controller of somebody's own in a thread of its own: one that raises or hangs takes nothing along."""

import queue
import threading
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from insitu.client.models import Models
from insitu.errors import InsituError
from insitu.results import Result
from insitu.steering.actions import Action
from insitu.steering.controller import Controller
from insitu.steering.lockstep import Observation
from insitu.steering.parameters import Value


class ControllerStopped(InsituError):
    """A controller raised, took too long, or returned what is no action; `trace` says where, if it is known."""

    def __init__(self, reason: str, trace: str = "") -> None:
        super().__init__(reason)
        self.trace = trace


@dataclass(slots=True)
class _Call:
    result: Result
    parameters: Mapping[str, Value]


class Guarded:
    """Calls a copy of `controller`, each time for at most its `max_time`, in the run of `directory`.

    The thread of a controller that does not return cannot be ended, only left behind: it is a daemon, and what it may
    still say is not heard.
    """

    def __init__(self, name: str, controller: Controller, directory: Path) -> None:
        self.of = controller.of
        self.priority = controller.priority
        self._by = f"controller:{name}"
        self._max_s = controller.max_time
        self._controller = controller.in_run(Models(str(directory)).get)
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[list[Action] | ControllerStopped] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"insitu-{name}", daemon=True)
        self._thread.start()

    def __call__(self, observation: Observation, parameters: Mapping[str, Value]) -> list[Action]:
        """Return what the controller wants by a result; raises `ControllerStopped`, after which it is not called."""
        if observation.result is None:
            raise ControllerStopped(
                f"The results of '{observation.operator}' are too large to be gathered; give it over: [step, space], "
                "or let a rule read one of its numbers."
            )
        self._calls.put(_Call(observation.result, parameters))
        try:
            answer = self._answers.get(timeout=self._max_s)
        except queue.Empty:
            raise ControllerStopped(f"It took longer than max_time, {self._max_s:g} s, for one result.") from None
        if isinstance(answer, ControllerStopped):
            raise answer
        return answer

    def close(self, *, wait: bool) -> None:
        """Let the thread end, and wait for it unless it hangs. May be called twice."""
        self._calls.put(None)
        if wait:
            self._thread.join(self._max_s)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                wanted = self._controller.on_result(call.result, call.parameters)
                self._answers.put([self._signed(action) for action in _as_list(wanted)])
            except Exception as error:  # noqa: BLE001 - foreign code; the event carries it to its author
                self._answers.put(ControllerStopped(f"{type(error).__name__}: {error}", traceback.format_exc()))

    def _signed(self, action: Action) -> Action:
        if not isinstance(action, Action):
            raise TypeError(f"on_result returned {action!r:.80}, which is no Action")
        return Action(action.kind, action.values, self._by, action.why)


def _as_list(wanted: Iterable[Action] | None) -> list[Action]:
    return [] if wanted is None else list(wanted)
