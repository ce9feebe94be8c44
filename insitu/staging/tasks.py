# SPDX-License-Identifier: Apache-2.0
"""Which tasks a window becomes whose states lie at staging nodes.

Nothing here knows Dask: `submit` takes a function and its arguments. So the same code says how many tasks there will be
(``insitu check``), with a `submit` that only counts. The number grows with staging nodes and with the bytes of a row,
never with ranks or steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from insitu.operator import SeriesOperator, State
from insitu.staging.merging import Part, Place, Recipe, Target, bounding_box

#: Calls a function with these arguments where they lie; stands for the result in the arguments of another call.
Submit = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Done:
    """The finalised parts of a window, as they lie; of each node that has some where, and the results for steps."""

    parts: tuple[Any, ...]
    boxes: tuple[Place, ...]
    places: tuple[tuple[Place, ...], ...]
    series: Any = None


def finalized(
    submit: Submit,
    recipe: Recipe,
    states: Sequence[Any],
    places: Sequence[Sequence[Place]],
    parts: Sequence[Part] = (),
    memory: State | None = None,
) -> Done:
    """Have states merged and finalised: those of one node each in `states`, and the `parts` that are at hand."""
    several = [*states, *([list(parts)] if parts else [])]
    where = [tuple(each) for each in (*places, *([[(start, count) for start, count, _ in parts]] if parts else []))]
    distinct = [place for each in where for place in set(each)]
    if not recipe.cells or len(set(distinct)) < len(distinct):
        several, where = [_in_pairs(submit, recipe.merge, several)], [tuple(dict.fromkeys(distinct))]
    summary, series = [], None
    if recipe.joint:
        whole = _in_pairs(submit, recipe.combine, [submit(recipe.summarize, state) for state in several])
        if isinstance(recipe.operator, SeriesOperator):
            whole = submit(recipe.operator.follow, whole, memory or {})
            series = submit(recipe.operator.series, whole)
        summary = [whole]
    done = tuple(submit(recipe.finalize, state, *summary) for state in several)
    return Done(done, tuple(bounding_box(each) for each in where), tuple(where), series)


def written(submit: Submit, target: Target, done: Done) -> Any:
    """Have a row put together and written; return what stands for the end of it."""
    writes = []
    for bundle in target.recipe.bundles():
        at_hand = zip(done.boxes, done.parts, strict=True)
        cuts = [submit(target.recipe.cut, each, bundle) for box, each in at_hand if target.recipe.touches(box, bundle)]
        writes.append(submit(target.write, bundle, cuts))
    return submit(_all, writes)


def gathered(submit: Submit, recipe: Recipe, done: Done) -> Any:
    """Have a small row put together; return what stands for its arrays."""
    [whole] = recipe.bundles()
    return submit(recipe.row, whole, [submit(recipe.cut, each, whole) for each in done.parts])


def _in_pairs(submit: Submit, join: Callable[..., Any], several: list[Any]) -> Any:
    """Join states, or summaries, in pairs, and the pairs in pairs."""
    while len(several) > 1:
        pairs = [several[k : k + 2] for k in range(0, len(several), 2)]
        several = [submit(join, *pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return several[0]


def _all(written: Sequence[None]) -> None:
    """Wait for every part of a row to be written: a task that depends on them all."""
