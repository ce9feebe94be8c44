# SPDX-License-Identifier: Apache-2.0
"""What a run will yield and hold, as far as the configuration says what its variables are going to be.

Results are those of `Pipeline.describe`. How large a state gets is measured, since only the operator knows: it folds
random steps of a block as large as a staging node's share, or, where that is large, of two smaller ones, and of a
window's steps, or, where these are many, of two smaller numbers of them; from these it goes on in straight lines, which
all states do that are arrays of cells or of steps. How many tasks a window has is counted by the code that submits them
(`insitu.staging.tasks`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from insitu.config.function import Function
from insitu.model import Step, Variable
from insitu.operator import Batch, Operator, state_nbytes
from insitu.pipeline import Described, Pipeline, series_of
from insitu.staging import tasks
from insitu.staging.folder import SMALL_BYTES
from insitu.staging.merging import Place, Recipe, Target

#: Values of one step that are folded to measure a state, and steps: more than fills what waits in any state.
VALUES, STEPS = 2**12, 128
#: Members, each with so many values: whole groups of most sizes, and more of them would make no state larger.
MEMBERS = 60


@dataclass(frozen=True, slots=True)
class Load:
    """What an operator costs. `nbytes` is of one staging node: of the states of a window, and of all that it holds.

    `per_step` is by how much that grows with each step of a window whose number of steps is not known. `tasks` are for
    each window; none where the states are small and merged by the controller. What is not known is ``None``, and `why`
    says why.
    """

    nbytes: int | None
    per_step: int = 0
    tasks: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Results by operator, and what each operator costs."""

    results: Described
    loads: Mapping[str, Load]

    @property
    def nbytes(self) -> int:
        """Bytes that all states of one node may take."""
        return sum(load.nbytes or 0 for load in self.loads.values())


def forecast(pipeline: Pipeline) -> Forecast:
    """Say what a pipeline will yield and hold; raise `ConfigError` where it cannot work.

    Costs the folding of some thousand values by each operator.
    """
    variables = pipeline.sent(pipeline.expected)
    described = pipeline.describe(pipeline.expected, lacking=None)
    nodes, ranks = pipeline.config.staging.nodes, pipeline.config.simulation.ranks
    loads: dict[str, Load] = {}
    rows = {name: rules.expect.rows for name, rules in pipeline.config.variables.items() if rules.expect}
    for name, operator in pipeline.folded.items():
        if name in described:
            inputs = {wanted: variables[wanted] for wanted in operator.inputs}
            loads[name] = _load(name, operator, inputs, nodes, max(ranks, nodes), rows)
    for name, source in pipeline.chained.items():
        if name in described:
            inputs = {wanted: _result(described, wanted) for wanted in pipeline.operators[name].inputs}
            load = _load(name, pipeline.operators[name], inputs, nodes, nodes, rows)
            there = loads[source].tasks and any(variable.shape for variable in inputs.values())
            loads[name] = load if there else replace(load, tasks=0 if load.nbytes is not None else None)
    return Forecast(described, loads)


def _result(described: Described, wanted: str) -> Variable:
    source, _, result = wanted.partition(".")
    both = described[source] | described.get(series_of(source), {})
    return both[result].renamed(wanted)


def _load(
    name: str,
    operator: Operator,
    inputs: Mapping[str, Variable],
    nodes: int,
    places: int,
    rows: Mapping[str, int | None],
) -> Load:
    lengths = {each: rows.get(each) if variable.joined else None for each, variable in inputs.items()}
    unknown = [each for each, variable in inputs.items() if variable.joined and lengths[each] is None]
    if unknown:
        return Load(None, why=f"the number of rows of {', '.join(unknown)} is not known; give expect.rows")
    try:
        window, per_step = _state_bytes(operator, inputs, nodes, lengths)
    except Exception as error:  # noqa: BLE001 - an operator is foreign code, and may fold only what its own data are like
        return Load(None, why=f"random values cannot be folded: {type(error).__name__}: {error}")
    if isinstance(operator, Function):
        held = 2 * window if operator.panes.count > 1 else window
        return Load(held, per_step, nodes * (1 + len(inputs)) + 2)
    held = window
    if not operator.keeps_steps and operator.panes.count > 1:
        held = (2 * operator.panes.count + 1) * window
    return Load(held, per_step, _tasks(name, operator, inputs, nodes, places, window))


def _state_bytes(
    operator: Operator, inputs: Mapping[str, Variable], nodes: int, rows: Mapping[str, int | None]
) -> tuple[int, int]:
    """Return the bytes of a node's states of one window, and by how much each step more adds to them."""
    seen = operator.seen(inputs)
    first = max((_first(variable, rows[name]) for name, variable in seen.items()), default=1)
    # Members may be spread over the nodes, so that each has states of all cells.
    share = first if operator.over_members else -(-first // nodes)
    inner = max((math.prod(_inner(variable)) for variable in seen.values()), default=1)
    most = max(2, VALUES // max(1, inner))

    def at(length: int, steps: int) -> float:
        return float(_peak(operator, inputs, length, steps))

    def of_steps(steps: int) -> float:
        return _onward(lambda length: at(length, steps), share, most)

    if operator.keeps_steps:
        return round(of_steps(1)), 0
    if isinstance(operator.window, int):
        return round(_onward(of_steps, operator.window, STEPS)), 0
    here, before = of_steps(STEPS), of_steps(STEPS // 2)
    return round(here), round((here - before) / (STEPS - STEPS // 2))


def _onward(measured: Callable[[int], float], wanted: int, most: int) -> float:
    """Return `measured(wanted)`, by a straight line where `wanted` is more than `most`."""
    if wanted <= most:
        return measured(wanted)
    low, high = measured(most // 2), measured(most)
    return high + (high - low) * (wanted - most) / (most - most // 2)


def _peak(operator: Operator, inputs: Mapping[str, Variable], length: int, steps: int) -> int:
    """Return the most that a state takes while it folds random steps of a block, `length` long at first."""
    rng = np.random.default_rng(0)
    state, peak = operator.init(), 0
    for sequence in range(steps):
        arrays = {name: (_random(operator, variable, length, rng),) for name, variable in inputs.items()}
        start = {name: (0,) * variable.ndim for name, variable in inputs.items()}
        batch = Batch((Step(sequence, sequence, float(sequence)),), inputs, start, arrays)
        state = operator.update(state, operator.seen_batch(batch))
        peak = max(peak, state_nbytes(state))
    return peak


def _random(operator: Operator, variable: Variable, length: int, rng: np.random.Generator) -> Any:
    if operator.over_members:
        members = min(MEMBERS, (variable.shape or (1,))[0])
        one = replace(variable, shape=(variable.shape or ())[1:], dims=variable.dims[1:])
        return np.stack([_values(one, length, rng) for _ in range(members)])
    return _values(variable, length, rng)


def _values(variable: Variable, length: int, rng: np.random.Generator) -> Any:
    shape = (min(length, variable.shape[0]) if variable.shape else length, *_inner(variable)) if variable.ndim else ()
    if variable.dtype.kind in "biu":
        return np.arange(math.prod(shape)).reshape(shape).astype(variable.dtype)
    return rng.random(shape).astype(variable.dtype)


def _first(variable: Variable, rows: int | None) -> int:
    if variable.shape is None:
        return rows or 1
    return variable.shape[0] if variable.shape else 1


def _inner(variable: Variable) -> tuple[int, ...]:
    return variable.row if variable.shape is None else variable.shape[1:]


def _tasks(name: str, operator: Operator, inputs: Mapping[str, Variable], nodes: int, places: int, nbytes: int) -> int:
    """Count the tasks of a window, each of whose `nodes` states has `nbytes`."""
    if operator.keeps_steps or nbytes <= SMALL_BYTES:
        return 0
    recipe = Recipe.of(name, operator, inputs)
    counted: list[object] = []

    def submit(function: Callable[..., Any], *arguments: Any) -> object:
        counted.append(function)
        return object()

    cells = operator.seen(inputs)[operator.of[0]].shape or () if recipe.cells else ()
    done = tasks.finalized(submit, recipe, [object()] * nodes, _places(cells, nodes, places))
    if recipe.small:
        tasks.gathered(submit, recipe, done)
    else:
        tasks.written(submit, Target(recipe, Path(), 0), done)
    return len(counted)


def _places(cells: tuple[int, ...], nodes: int, places: int) -> list[list[Place]]:
    """Return slabs of the first dimension, some for each node."""
    if not cells:
        return [[((0,) * len(cells), cells)]] * nodes
    each = max(1, -(-places // nodes))
    cuts = [cells[0] * k // (nodes * each) for k in range(nodes * each + 1)]
    slabs = [((low, *(0,) * (len(cells) - 1)), (high - low, *cells[1:])) for low, high in pairwise(cuts)]
    return [slabs[k * each : (k + 1) * each] for k in range(nodes)]
