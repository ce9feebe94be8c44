# SPDX-License-Identifier: Apache-2.0
"""A controller of somebody's own, as the documentation has it."""

from insitu.steering.controller import Action, OneResult, Parameters, Result


class Thermostat(OneResult):
    """Heats while it is too cold."""

    setpoint: float

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        error = self.setpoint - self.number(result)
        return [Action("set", {"heating": 0.1 * error}, why=f"off by {error:g}")]
