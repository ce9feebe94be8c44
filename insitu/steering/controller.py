# SPDX-License-Identifier: Apache-2.0
"""The contract of a controller: Python that looks at results and answers with actions.

A controller is for what no expression says: a PID, a Kalman filter, an optimiser, a trained model. It is named in the
YAML as an operator is, by ``use:``, and its fields are its keys there:

    from insitu.steering.controller import Action, OneResult, Parameters, Result

    class Thermostat(OneResult):
        setpoint: float

        def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
            error = self.setpoint - self.number(result)
            return [Action("set", {"heating": parameters["heating"] + 0.1 * error}, why=f"off by {error:g}")]

**Who calls it.** One thread, with one result after another, in the order of their steps; so it may keep what it likes
between two calls, in private attributes (`pydantic.PrivateAttr`). A run works on a copy of its own.

**What happens to one that fails.** A controller that raises, or takes longer than `max_time` for one result, is
stopped, and an event names it; the run goes on. Where a value is out of bounds or a name unknown, the action is refused
and not the controller stopped: the receipt says so.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from insitu.model import Array
from insitu.operator import Names
from insitu.results import Provenance, Result
from insitu.steering.actions import Action
from insitu.steering.parameters import Value

__all__ = ["Action", "Controller", "OneResult", "Parameters", "Provenance", "Result", "Value"]

#: The values that the simulation's parameters have now, by name.
Parameters = Mapping[str, Value]


class Controller(BaseModel, ABC):
    """Base of all controllers; also the model of its entry in the YAML, so a field here is a key there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    of: Names = Field(description="the operator or operators whose results it gets")
    priority: int = Field(default=0, description="of two that want different values at one step, the higher is heard")
    max_time: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=10.0, description="seconds that it may take for one result; a slower one is stopped"
    )
    _find_model: Callable[[str, int | None], Any] | None = PrivateAttr(default=None)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The results that it looks up by name, which ``insitu check`` looks up too; an empty name is the only one."""
        return ()

    @abstractmethod
    def on_result(self, result: Result, parameters: Parameters) -> Iterable[Action]:
        """Look at a result of an operator of `of`; return what is wanted of the simulation, in most cases nothing."""

    def trained_model(self, name: str, version: int | None = None) -> Any:
        """Return a version of the network that operator `name` trains, the newest one unless another is asked for; or
        ``None`` while there is none.

        It is what `insitu.Client.model` gives to a simulation: called with inputs as they are on the stream,
        (n, *shape) or one sample, it returns float32 arrays; its `number` and `card` say which it is. Loaded once for
        each version. The first call imports PyTorch, which takes seconds of `max_time`.

        Raises `RunError` for a version that is not there or not whole.
        """
        return None if self._find_model is None else self._find_model(name, version)

    def in_run(self, find_model: Callable[[str, int | None], Any]) -> Self:
        """Return a copy of this controller for one run, whose trained networks `find_model` finds."""
        own = copy.deepcopy(self)
        own._find_model = find_model
        return own


class OneResult(Controller):
    """Base of controllers that look at one array of a result, whose name ``insitu check`` looks up."""

    result: str = Field(default="", description="which of the operator's results; empty: its only one")

    @property
    def wanted(self) -> tuple[str, ...]:
        return (self.result,)

    def array(self, result: Result) -> Array:
        """Return the array. Raises `ValueError` in words where it is not there."""
        names = list(result.arrays)
        name = names[0] if not self.result and len(names) == 1 else self.result
        if name not in result.arrays:
            raise ValueError(f"'{result.operator}' yields {', '.join(names)}: result: must name one of them")
        return result.arrays[name]

    def number(self, result: Result) -> float:
        """Return the array as the one number that it must be. Raises `ValueError` in words where it is none."""
        array = self.array(result)
        if array.size != 1:
            raise ValueError(f"a result of '{result.operator}' is an array of shape {array.shape}, not a number")
        return float(array.reshape(-1)[0])
