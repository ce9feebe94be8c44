# SPDX-License-Identifier: Apache-2.0
"""From a configuration to a checked graph: which operator folds what, and which results are stored.

What a simulation publishes is known only when it publishes. So a configuration is checked twice: by itself when it is
loaded, and by `Pipeline.describe` against the first layout. A mistake found then still names its file and line.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from insitu.config import Config
from insitu.config.places import Path
from insitu.config.values import indices
from insitu.config.words import nearest
from insitu.errors import ConfigError, OperatorError, Problem
from insitu.model import Variable
from insitu.operator import Operator
from insitu.selection import faults_of_selection, sent
from insitu.wire.messages import Need, Range


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The graph of a loaded configuration."""

    config: Config

    @property
    def operators(self) -> Mapping[str, Operator]:
        """All operators by name, in the order of the file."""
        return self.config.operators

    @property
    def stored(self) -> tuple[str, ...]:
        """The operators whose results go to ``results.zarr``, each once, in the order of the file.

        All of them where the outputs are recordings only, which say nothing of results.
        """
        outputs = self.config.outputs
        results = [output for output in outputs if output.to == "zarr"]
        wanted = {name for output in results for name in output.of} if results or not outputs else {"*"}
        return tuple(name for name in self.operators if name in wanted or "*" in wanted)

    @property
    def needs(self) -> tuple[Need, ...]:
        """What is needed of the ranks: each variable that is folded, or recorded, once. Nothing else is sent.

        Where all variables are recorded, those that nobody names are sent whole.
        """
        folded = [name for operator in self.operators.values() for name in operator.inputs]
        recorded = self.config.recorded
        named = tuple(self._need(name) for name in dict.fromkeys([*folded, *sorted(recorded - {"*"})]))
        return (*named, Need("*", (), "", "none", 0.0)) if "*" in recorded else named

    def _need(self, name: str) -> Need:
        rules = self.config.rules(name)
        ranges = tuple(Range(dim, *indices(text)) for dim, text in rules.select.items())
        return Need(name, ranges, rules.dtype or "", rules.codec, rules.tolerance or 0.0)

    def describe(
        self, variables: Mapping[str, Variable], lacking: str = "no rank publishes a variable"
    ) -> dict[str, dict[str, Variable]]:
        """Return the results of every operator for these variables as the ranks put them, by operator and name.

        A result is described without its leading dimension ``window`` or ``step``. Raises `ConfigError` with all
        mistakes: variables that nobody publishes (said in the words of `lacking`), to be folded or recorded, selections
        that they do not have, and operators that can never fold what is sent.
        """
        inputs, problems = self._inputs(variables)
        described: dict[str, dict[str, Variable]] = {}
        for name, operator in self.operators.items():
            missing = [wanted for wanted in operator.inputs if wanted not in variables]
            problems += [
                self._unknown(("operators", name, _key_of(operator, wanted)), wanted, variables, lacking)
                for wanted in missing
            ]
            if not all(wanted in inputs for wanted in operator.inputs):
                continue
            try:
                described[name] = operator.describe(
                    operator.seen({wanted: inputs[wanted] for wanted in operator.inputs})
                )
            except OperatorError as error:
                problems.append(self.config.problem(("operators", name), str(error)))
            except Exception as error:  # noqa: BLE001 - an operator is foreign code; the problem carries it on
                problems.append(self.config.problem(("operators", name), f"{type(error).__name__}: {error}"))
        for index, output in enumerate(self.config.outputs):
            unknown = set(output.of) - {"*", *variables} if output.to == "record" else ()
            problems += [self._unknown(("outputs", index, "of"), name, variables, lacking) for name in sorted(unknown)]
        if problems:
            raise ConfigError(problems)
        return described

    def _inputs(self, variables: Mapping[str, Variable]) -> tuple[dict[str, Variable], list[Problem]]:
        """Return the needed variables as they are sent, and what is wrong with the selection of the others."""
        inputs: dict[str, Variable] = {}
        problems: list[Problem] = []
        for need in self.needs:
            if (variable := variables.get(need.name)) is None:
                continue
            faults = faults_of_selection(variable, need.select)
            problems += [self._unfit(need.name, dim, fault) for dim, fault in faults.items()]
            if not faults:
                inputs[need.name] = sent(variable, need)
        return inputs, problems

    def _unfit(self, name: str, dim: str, fault: str) -> Problem:
        own = name in self.config.variables and "select" in self.config.variables[name].model_fields_set
        cure = "" if own else f'; where "*" does not fit, give "{name}" a select of its own, be it {{}}'
        return self.config.problem(("variables", name if own else "*", "select", dim), fault + cure)

    def _unknown(self, path: Path, wanted: str, variables: Mapping[str, Variable], lacking: str) -> Problem:
        known = ", ".join(variables) or "none"
        message = f'{lacking} "{wanted}"{nearest(wanted, variables)} (published are {known})'
        return self.config.problem(path, message)


def _key_of(operator: Operator, wanted: str) -> str:
    """Return the key of the YAML that names this variable: `of`, or one of the operator's own."""
    named = (key for key, value in operator if value == wanted or (isinstance(value, tuple) and wanted in value))
    return next(named, "of")
