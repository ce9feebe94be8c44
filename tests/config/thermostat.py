# SPDX-License-Identifier: Apache-2.0
"""A controller of somebody's own, as the documentation has it."""

from insitu.steering.controller import Action, Controller, Parameters, Result, number


class Thermostat(Controller):
    """Heats while it is too cold."""

    setpoint: float

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        error = self.setpoint - number(result, "mean")
        return [Action("set", {"heating": 0.1 * error}, why=f"off by {error:g}")]
