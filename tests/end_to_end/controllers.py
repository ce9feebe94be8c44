# SPDX-License-Identifier: Apache-2.0
"""Controllers as a user's package would bring them: two that fail, each in its own way."""

import threading

from insitu.steering.controller import Action, OneResult, Parameters, Result


class Raises(OneResult):
    """Sees a number too many."""

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        raise ArithmeticError(f"no root of {self.number(result):.0f}")


class Hangs(OneResult):
    """Never answers."""

    def on_result(self, result: Result, parameters: Parameters) -> list[Action]:
        threading.Event().wait()
        return []
