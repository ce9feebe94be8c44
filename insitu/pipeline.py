# SPDX-License-Identifier: Apache-2.0
"""From a configuration to a checked graph: which operator folds what, and which results are stored.

An operator folds variables of the simulation, or results of one other operator, as ``stats.mean``: a *chain*. Operators
of variables run on the staging nodes; each result is a step of those behind it.

What a simulation publishes is known only when it publishes. So a configuration is checked twice: by itself when it is
loaded, and by `Pipeline.describe` against the first layout. A mistake found then still names its file and line.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from insitu.config import Config
from insitu.config.model import Expect
from insitu.config.places import Path
from insitu.config.values import indices
from insitu.config.words import nearest
from insitu.errors import ConfigError, OperatorError, Problem
from insitu.learner import Learner
from insitu.model import Variable, has_cells, parameter_of
from insitu.operator import Operator, SeriesOperator
from insitu.selection import faults_of_selection, sent, steps_taken
from insitu.wire.blocks import ALL_STEPS, Range
from insitu.wire.messages import Need

#: The results of operators by the operator's name, and within by their own.
Described = dict[str, dict[str, Variable]]


def series_of(name: str) -> str:
    """Name what operator `name` yields for single steps: also its group in ``results.zarr``."""
    return f"{name}.series"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The graph of a loaded configuration."""

    config: Config

    @property
    def operators(self) -> Mapping[str, Operator]:
        """All operators that fold by name, in the order of the file."""
        return self.config.folds

    @property
    def learners(self) -> Mapping[str, Learner]:
        """The operators that learn, each in a process of its own."""
        return self.config.learners

    @property
    def folded(self) -> Mapping[str, Operator]:
        """The operators of variables, which staging nodes fold."""
        return {name: operator for name, operator in self.operators.items() if not operator.sources}

    @property
    def chained(self) -> Mapping[str, str]:
        """The operators of results, each with the operator whose results it takes; who gives comes before who takes."""
        ordered: dict[str, str] = {}
        waiting = {name: source for name, op in self.operators.items() for source in op.sources[:1]}
        while ready := [name for name, source in waiting.items() if source in self.folded or source in ordered]:
            ordered |= {name: waiting.pop(name) for name in ready}
        return ordered

    def takers(self, name: str) -> list[str]:
        """Return the operators that take results of operator `name`."""
        return [taker for taker, source in self.chained.items() if source == name]

    @property
    def stored(self) -> tuple[str, ...]:
        """The operators whose results go to ``results.zarr``, each once, in the order of the file.

        All of them where the outputs are recordings only, which say nothing of results.
        """
        outputs = self.config.outputs
        said = any(output.to != "record" for output in outputs)
        return self._named("zarr") if said or not outputs else tuple(self.config.operators)

    @property
    def shown(self) -> tuple[str, ...]:
        """The operators whose results consoles may follow: those that are stored, and those that are for consoles."""
        also = {*self.stored, *self._named("console")}
        return tuple(name for name in self.operators if name in also)

    def _named(self, to: str) -> tuple[str, ...]:
        wanted = {name for output in self.config.outputs if output.to == to for name in output.of}
        return tuple(name for name in self.config.operators if name in wanted or "*" in wanted)

    @property
    def folded_by_ranks(self) -> Mapping[str, Operator]:
        """The operators that ranks fold themselves."""
        return {name: operator for name, operator in self.folded.items() if operator.where == "rank"}

    @property
    def stays(self) -> tuple[str, ...]:
        """The needed variables that do not leave their ranks, as only operators there take them."""
        if "*" in self.config.recorded:
            return ()
        here = {name for operator in self.folded_by_ranks.values() for name in operator.inputs}
        sent = {name for key, each in self.folded.items() if key not in self.folded_by_ranks for name in each.inputs}
        sent |= {name for learner in self.learners.values() for name in learner.needs} | self.config.recorded
        return tuple(sorted(here - sent))

    @property
    def needs(self) -> tuple[Need, ...]:
        """What is needed of the ranks: each variable that is folded, learnt or recorded, once. Nothing else is sent,
        and of these not what `stays`.

        Where all variables are recorded, those that nobody names are sent whole.
        """
        folded = [name for operator in self.folded.values() for name in operator.inputs]
        learnt = [name for learner in self.learners.values() for name in learner.needs]
        recorded = self.config.recorded
        named = tuple(self._need(name) for name in dict.fromkeys([*folded, *learnt, *sorted(recorded - {"*"})]))
        return (*named, Need("*", (), "", "none", 0.0)) if "*" in recorded else named

    def _need(self, name: str) -> Need:
        rules = self.config.rules(name)
        ranges = {dim: Range(dim, *indices(text)) for dim, text in rules.select.items()}
        steps = ranges.pop("step", ALL_STEPS)
        return Need(name, tuple(ranges.values()), rules.dtype or "", rules.codec, rules.tolerance or 0.0, steps)

    def steps_due(self, name: str, since: int, upto: int) -> int:
        """Return how many of these sequences hold what an operator of variables folds, if none is dropped."""
        operator = self.folded[name]
        steps = [self._need(wanted).steps for wanted in operator.inputs]
        return steps_taken(steps, operator.needs_all, since, upto)

    def describe(
        self, variables: Mapping[str, Variable], lacking: str | None = "no rank publishes a variable"
    ) -> Described:
        """Return the results of every operator for these variables as the ranks put them, by operator and name.

        A result is described without its leading dimension ``window`` or ``step``. What a `SeriesOperator` yields for
        single steps stands under the operator's name with ``.series`` behind it. Raises `ConfigError` with all
        mistakes: variables that nobody publishes (said in the words of `lacking`, or with ``None`` no mistake, as they
        may still come), to be folded or recorded, selections that they do not have, and operators that can never fold
        what is sent.
        """
        inputs, problems = self._inputs(variables)
        described: Described = {}
        cells: dict[str, tuple[str, ...]] = {}
        takers: dict[str, tuple[Operator | Learner, Sequence[str]]]
        takers = {name: (each, each.inputs) for name, each in self.folded.items()}
        takers |= {name: (each, each.needs) for name, each in self.learners.items()}
        problems += [
            self._unknown(("operators", name, _key_of(taker, wanted)), wanted, variables, lacking)
            for name, (taker, all_wanted) in takers.items()
            for wanted in all_wanted
            if wanted not in variables and lacking is not None
        ]
        for name, operator in self.folded.items():
            if all(wanted in inputs for wanted in operator.inputs):
                own = {wanted: inputs[wanted] for wanted in operator.inputs}
                problems += self._describe(name, own, described)
                cells[name] = own[operator.of[0]].dims[operator.over_members :] if operator.keeps_cells else ()
        for name, learner in self.learners.items():
            if all(wanted in inputs for wanted in learner.needs):
                own = {wanted: inputs[wanted] for wanted in learner.needs}
                problems += self._guarded(name, partial(_describe_learner, name, learner, own, described))
        for name, source in self.chained.items():
            if source in described:
                problems += self._describe_chained(name, source, described, cells)
        for index, output in enumerate(self.config.outputs):
            unknown = set(output.of) - {"*", *variables} if output.to == "record" else ()
            problems += [
                self._unknown(("outputs", index, "of"), name, variables, lacking)
                for name in sorted(unknown)
                if lacking is not None
            ]
        if problems:
            raise ConfigError(problems)
        return described

    def _describe(self, name: str, inputs: Mapping[str, Variable], described: Described) -> list[Problem]:
        """Add what an operator yields for these inputs to `described`, or say why it cannot fold them."""
        operator = self.operators[name]

        def describe() -> None:
            seen = operator.seen(inputs)
            described[name] = operator.describe(seen)
            if isinstance(operator, SeriesOperator):
                described[series_of(name)] = operator.describe_series(seen)

        return self._guarded(name, describe)

    def _guarded(self, name: str, describe: Callable[[], object]) -> list[Problem]:
        """Have an operator describe its results; it is foreign code, and so may what it raises be."""
        try:
            describe()
        except OperatorError as error:
            return [self.config.problem(("operators", name), str(error))]
        except Exception as error:  # noqa: BLE001 - an operator is foreign code; the problem carries it on
            return [self.config.problem(("operators", name), f"{type(error).__name__}: {error}")]
        return []

    def _describe_chained(
        self, name: str, source: str, described: Described, cells: dict[str, tuple[str, ...]]
    ) -> list[Problem]:
        """The same for an operator of results."""
        operator = self.operators[name]
        results, series = described[source], described.get(series_of(source), {})
        inputs: dict[str, Variable] = {}
        problems = []
        for wanted in operator.inputs:
            result = wanted.partition(".")[2]
            found = results.get(result) or series.get(result)
            if found is None:
                known = [*results, *series]
                message = f'"{source}" yields no "{result}"{nearest(result, known)} (it yields {", ".join(known)})'
                problems.append(self.config.problem(("operators", name, _key_of(operator, wanted)), message))
            else:
                inputs[wanted] = found.renamed(wanted)
        kinds = {wanted.partition(".")[2] in series for wanted in inputs}
        extents = {has_cells(variable, cells[source]) for variable in inputs.values()}
        if len(kinds) > 1 or len(extents) > 1:
            message = "takes results of single steps and of windows, or of cells and of none; make one entry for each"
            problems.append(self.config.problem(("operators", name, "of"), message))
        if problems:
            return problems
        cells[name] = inputs[operator.of[0]].dims if operator.keeps_cells else ()
        return self._describe(name, inputs, described)

    def _inputs(self, variables: Mapping[str, Variable]) -> tuple[dict[str, Variable], list[Problem]]:
        """Return the needed variables as they are sent, and what is wrong with the selection of the others."""
        inputs: dict[str, Variable] = {}
        problems: list[Problem] = []
        for need in self.needs:
            if (variable := variables.get(need.name)) is None:
                continue
            problems += self._unexpected(variable)
            faults = faults_of_selection(variable, need.select)
            problems += [self._unfit(need.name, dim, fault) for dim, fault in faults.items()]
            if not faults:
                inputs[need.name] = sent(variable, need)
        return inputs, problems

    @property
    def expected(self) -> dict[str, Variable]:
        """The needed variables of which the configuration says what they are going to be."""
        known = {name: self.config.rules(name).expect for name in dict.fromkeys(need.name for need in self.needs)}
        return {name: _variable(name, expect) for name, expect in known.items() if expect is not None}

    def sent(self, variables: Mapping[str, Variable]) -> dict[str, Variable]:
        """Return variables as they leave their ranks, those that are needed and whose selection they have."""
        return self._inputs(variables)[0]

    def _unexpected(self, variable: Variable) -> list[Problem]:
        """Say where what a rank puts is not what the configuration expects."""
        expected = self.expected.get(variable.name)
        differing = ("dims", "shape", "row", "dtype", "units") if expected else ()
        return [
            self.config.problem(
                ("variables", variable.name, "expect"),
                f"{key} of '{variable.name}' is {getattr(variable, key)!r}, expected was {getattr(expected, key)!r}",
            )
            for key in differing
            if getattr(variable, key) != getattr(expected, key)
        ]

    def _unfit(self, name: str, dim: str, fault: str) -> Problem:
        own = name in self.config.variables and "select" in self.config.variables[name].model_fields_set
        cure = "" if own else f'; where "*" does not fit, give "{name}" a select of its own, be it {{}}'
        return self.config.problem(("variables", name if own else "*", "select", dim), fault + cure)

    def _unknown(self, path: Path, wanted: str, variables: Mapping[str, Variable], lacking: str) -> Problem:
        known = ", ".join(variables) or "none"
        message = f'{lacking} "{wanted}"{nearest(wanted, variables)} (published are {known})'
        if parameter_of(wanted) is not None:
            message += "; a parameter is a number, a truth or an array, declared before the first step"
        return self.config.problem(path, message)


def _variable(name: str, expect: Expect) -> Variable:
    joined = None in expect.shape
    lengths = tuple(length for length in expect.shape if length is not None)
    dtype = np.dtype(expect.dtype)
    return Variable(name, dtype, None if joined else lengths, expect.dims, expect.units, row=lengths if joined else ())


def _describe_learner(name: str, learner: Learner, inputs: Mapping[str, Variable], described: Described) -> None:
    described[name] = learner.describe(inputs)


def _key_of(operator: Operator | Learner, wanted: str) -> str:
    """Return the key of the YAML that names this variable: `of`, or one of the operator's own."""
    named = (key for key, value in operator if value == wanted or (isinstance(value, tuple) and wanted in value))
    return next(named, "of")
