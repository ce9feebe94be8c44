# SPDX-License-Identifier: Apache-2.0
"""The contract of a controller: Python that looks at results and answers with actions.

A controller is for what no expression says: a PID, a Kalman filter, an optimiser, a trained model. It is named in the
YAML as an operator is, by ``use:``, and its fields are its keys there:

    from insitu.steering.controller import Action, Controller, Parameters, Result

    class Thermostat(Controller):
        setpoint: float

        def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
            error = self.setpoint - float(result.arrays["mean"])
            return [Action("set", {"heating": parameters["heating"] + 0.1 * error}, why=f"off by {error:g}")]

**Who calls it.** One thread, with one result after another, in the order of their steps; so it may keep what it likes
between two calls, in private attributes (`pydantic.PrivateAttr`). A run works on a copy of its own.

**What happens to one that fails.** A controller that raises, or takes longer than `max_time` for one result, is
stopped, and an event names it; the run goes on. Where a value is out of bounds or a name unknown, the action is refused
and not the controller stopped: the receipt says so.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from insitu.model import Array
from insitu.operator import Names
from insitu.results import Provenance, Result
from insitu.steering.actions import Action
from insitu.steering.parameters import Value

__all__ = ["Action", "Controller", "Parameters", "Provenance", "Result", "Value", "number"]

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

    @abstractmethod
    def on_result(self, result: Result, parameters: Parameters) -> Iterable[Action]:
        """Look at a result of an operator of `of`; return what is wanted of the simulation, in most cases nothing."""


def number(result: Result, name: str) -> float:
    """Return the result's array `name`, or its only one where `name` is empty, as the one number that it must be.

    Raises `ValueError` in words where it is not there, or is no single number.
    """
    if not name and len(result.arrays) == 1:
        name = next(iter(result.arrays))
    if name not in result.arrays:
        raise ValueError(f"'{result.operator}' yields {', '.join(result.arrays)}: result: must name one of them")
    array: Array = result.arrays[name]
    if array.size != 1:
        raise ValueError(f"'{name}' of '{result.operator}' is an array of shape {array.shape}, not a number")
    return float(array.reshape(-1)[0])
