# SPDX-License-Identifier: Apache-2.0
"""Rules as the YAML has them, compiled; and what is wrong with rules and controllers, each at its own line.

Beside those of the section ``steering`` there are rules that operators bring along, as a key of theirs is short for one
(`Operator.stop_when`). From here on nobody can tell the two apart.

This is done twice. When a configuration is loaded, the names of operators are known, and in most cases those of their
results too, because an operator can be asked what it would yield of some variable. When the simulation has published
and declared its parameters, all is known. A mistake that is found only then still names its file and line.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from insitu.config.function import Function
from insitu.config.places import Path
from insitu.config.steering import RuleEntry, Steering
from insitu.config.words import nearest
from insitu.errors import ConfigError, Problem
from insitu.learner import Learner
from insitu.model import Variable, parameter_of
from insitu.operator import Operator
from insitu.steering.actions import VERBS
from insitu.steering.expressions import Expression
from insitu.steering.rules import Order, Rule
from insitu.steering.vocabulary import SOME_DIMS, Kind, Vocabulary, unknown_parameter

_RULES: Path = ("steering", "rules")
_CONTROLLERS: Path = ("steering", "controllers")


class Configured(Protocol):
    """What is asked of a `Config` here."""

    @property
    def operators(self) -> Mapping[str, Operator | Learner]: ...
    @property
    def steering(self) -> Steering: ...
    def problem(self, path: Path, message: str) -> Problem: ...


def compiled(config: Configured, vocabulary: Vocabulary) -> tuple[list[Rule], list[Problem]]:
    """Return the rules that can be judged, and what is wrong with the others and with the controllers."""
    rules: list[Rule] = []
    problems = _of_controllers(config, vocabulary)
    for path, name, entry in entries(config, vocabulary):
        compiling = _Compiling(config, vocabulary, path)
        rule = compiling.rule(entry, name)
        problems += compiling.problems
        if not compiling.problems:
            rules.append(rule)
    return rules, problems + _of_names(config, vocabulary)


def entries(config: Configured, vocabulary: Vocabulary) -> Iterator[tuple[Path, str, RuleEntry]]:
    """Yield all rules, with the path of each and its name: those of the file, and those that operators bring along."""
    for index, entry in enumerate(config.steering.rules):
        yield (*_RULES, index), entry.name or f"rule_{index + 1}", entry
    for operator, one in config.operators.items():
        if isinstance(one, Operator) and (when := one.stop_when(operator, vocabulary.results.get(operator))):
            entry = RuleEntry.model_validate({"when": when, "do": "stop", "once": True})
            yield ("operators", operator, "until"), f"{operator}_until", entry


def guessed(operators: Mapping[str, Operator | Learner]) -> Vocabulary:
    """Return the words of a configuration whose variables are not known yet."""
    return Vocabulary({name: _results(operator) for name, operator in operators.items()})


def known(described: Mapping[str, Mapping[str, Variable]], parameters: Collection[str]) -> Vocabulary:
    """Return the words of a run that has published: what each operator yields, and what can be set."""
    results = {
        name: {result: variable.ndim for result, variable in results.items()} for name, results in described.items()
    }
    return Vocabulary(results, parameters)


class _Compiling:
    """One rule on its way, and what is wrong with it."""

    def __init__(self, config: Configured, vocabulary: Vocabulary, path: Path) -> None:
        self.problems: list[Problem] = []
        self._config = config
        self._vocabulary = vocabulary
        self._path = path

    def rule(self, entry: RuleEntry, name: str) -> Rule:
        when = self._expression(entry.when, ("when",), "condition")
        do = tuple(self._order(path, kind, values) for path, kind, values in entry.actions)
        rule = Rule(
            name, when or Expression("False", self._vocabulary), do, entry.holds, entry.cooldown, entry.once,
            entry.priority, entry.notify,
        )  # fmt: skip
        if when is not None and not when.references:
            self._problem(("when",), f'"{entry.when}" reads no result, and would never be judged')
        for operator in sorted(rule.operators):
            if late := _too_late(self._config.operators[operator], operator):
                self._problem(("when",), late)
        return rule

    def _order(self, path: Path, kind: str, values: Mapping[str, Any]) -> Order:
        takes = {"set": None, "trate": ("every",), "resume": ("steps",)}.get(kind, () if kind in VERBS else None)
        done: dict[str, Any] = {}
        for name, value in values.items():
            at = (*path, *((kind,) if path[0] == "do" else ()), name)
            if takes is not None and name not in takes:
                self._problem(at, f"{kind} takes {' and '.join(takes) or 'no values'}")
            if kind == "set" and self._vocabulary.parameters is not None and name not in self._vocabulary.parameters:
                self._problem(at, unknown_parameter(name, self._vocabulary.parameters))
            done[name] = self._expression(value, at, "any") if isinstance(value, str) else value
        if kind == "set" and not values:
            self._problem(path, "set sets nothing; give it a parameter and a value, such as {feed: 0.03}")
        if kind == "trate" and "every" not in values:
            self._problem(path, "trate needs to know how often; write {trate: 10} to publish each tenth step")
        return Order(kind, done)

    def _expression(self, text: str, at: Path, kind: Kind) -> Expression | None:
        try:
            expression = Expression(text, self._vocabulary)
        except ConfigError as error:
            self._problem(at, str(error))
            return None
        if kind == "condition" and expression.kind not in ("condition", "any"):
            self._problem(at, f'"{text}" is a {expression.kind}; expected a condition, such as {text} > 0')
        return expression

    def _problem(self, at: Path, message: str) -> None:
        inside = at if self._path[:1] == ("steering",) else ()  # a key of an operator has no keys of a rule
        self.problems.append(self._config.problem((*self._path, *inside), message))


def _of_names(config: Configured, vocabulary: Vocabulary) -> list[Problem]:
    """Find names that two rules have."""
    seen: set[str] = set()
    problems = []
    for path, name, _ in entries(config, vocabulary):
        if name in seen:
            at = (*path, "name") if path[:1] == ("steering",) else path
            problems.append(config.problem(at, f'another rule is called "{name}" already'))
        seen.add(name)
    return problems


def _of_controllers(config: Configured, vocabulary: Vocabulary) -> list[Problem]:
    """Find controllers of operators that are not there or speak too late, and of results that these do not yield."""
    problems = []
    for name, controller in config.steering.controllers.items():
        for operator in controller.of:
            message = f'no operator is called "{operator}"{nearest(operator, config.operators)}'
            if operator in config.operators:
                message = _too_late(config.operators[operator], operator)
            if message:
                problems.append(config.problem((*_CONTROLLERS, name, "of"), message))
                continue
            for wanted in controller.wanted:
                key = ("result",) if wanted == getattr(controller, "result", None) else ()
                if message := _unknown_result(wanted, operator, vocabulary.results.get(operator)):
                    problems.append(config.problem((*_CONTROLLERS, name, *key), message))
    return problems


def _unknown_result(result: str, operator: str, results: Mapping[str, int] | None) -> str:
    if results is None or result in results or (not result and len(results) == 1):
        return ""
    listed = ", ".join(results)
    if not result:
        return f'"{operator}" yields several results, say which: {listed}'
    return f'"{operator}" yields no "{result}"{nearest(result, results)} (it yields {listed})'


def _too_late(operator: Operator | Learner, name: str) -> str:
    """Say why nobody can decide by an operator, or nothing."""
    if isinstance(operator, Learner):
        return ""
    if operator.sources or isinstance(operator, Function):
        what = "is a function" if isinstance(operator, Function) else "takes results of operators"
        return f'"{name}" {what}; rules and controllers look at operators of variables'
    if operator.keeps_steps or operator.window != "run":
        return ""
    return f'"{name}" yields its one result when the run has ended, too late to act; give it a window'


def _results(operator: Operator | Learner) -> dict[str, int] | None:
    """Return the dimensions of an operator's results for any variables that it can fold, or ``None``."""
    guesses = [guess for guess in (_describe(operator, ndim) for ndim in (0, 1, 2, 3, None)) if guess is not None]
    if not guesses:
        return None
    names = [name for name in guesses[0] if all(name in guess for guess in guesses)]
    dims = {name: {guess[name] for guess in guesses} for name in names}
    return {name: each.pop() if len(each) == 1 else SOME_DIMS for name, each in dims.items()}


def _describe(operator: Operator | Learner, ndim: int | None) -> dict[str, int] | None:
    """Ask what it would yield of arrays with `ndim` dimensions, or of particles; ``None`` where it cannot fold them."""
    dims = ("particle", "axis") if ndim is None else tuple(f"d{k}" for k in range(ndim))
    shape, row = (None, (3,)) if ndim is None else ((8,) * ndim, ())
    names = operator.needs if isinstance(operator, Learner) else operator.inputs
    inputs = {name: Variable(name, np.dtype("f8"), shape, dims, row=row) for name in names}
    inputs |= {name: Variable(name, np.dtype("f8"), (), ()) for name in names if parameter_of(name) is not None}
    try:
        return {name: variable.ndim for name, variable in operator.describe(inputs).items()}
    except Exception:  # noqa: BLE001 - an operator is foreign code, and these variables are not its own
        return None
