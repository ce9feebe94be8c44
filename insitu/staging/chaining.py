# SPDX-License-Identifier: Apache-2.0
"""Operators behind operators: each result is a step, whose blocks are the finalised parts of the places.

Pure functions over plain data. The controller calls them for results that came to it, Dask's tasks for those whose
parts lie at staging nodes: there the state of a chained operator stays beside them, and no field travels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from insitu.model import Array, Block, Step
from insitu.staging.assembler import Blocks, ReadyStep
from insitu.staging.folds import OperatorFolds
from insitu.staging.merging import Finalized, Part, Place, Recipe
from insitu.wire.messages import Entry


@dataclass(slots=True)
class Stage:
    """A chained operator's states at one place of work, and the windows that are complete there."""

    folds: OperatorFolds
    windows: dict[int, tuple[Entry, ...]] = field(default_factory=dict)


def blocks_of(recipe: Recipe, done: Sequence[Finalized], names: Sequence[str]) -> Blocks:
    """Return results as blocks: of each place one, or of results without cells those of the first place."""
    wanted = {f"{recipe.name}.{result}": recipe.described[result] for result in names}
    several = done if any(recipe.has_cells(variable) for variable in wanted.values()) else done[:1]
    blocks: Blocks = {}
    for number, (start, count, arrays) in enumerate(several):
        blocks[number] = {
            name: Block(
                variable.renamed(name),
                tuple(each.start for each in recipe.region(variable, start, count)),
                read_only(arrays[variable.name]),
            )
            for name, variable in wanted.items()
        }
    return blocks


def whole_blocks(recipe: Recipe, row: Mapping[str, Array], names: Sequence[str]) -> Blocks:
    """Return results that are put together already as the block of one place."""
    return {
        0: {
            f"{recipe.name}.{result}": Block(
                recipe.described[result].renamed(f"{recipe.name}.{result}"),
                (0,) * recipe.described[result].ndim,
                read_only(row[result]),
            )
            for result in names
        }
    }


def advance(stage: Stage, step: Step, recipe: Recipe, names: Sequence[str], done: Sequence[Finalized]) -> Stage:
    """Fold one result, at the place where its parts are. The stage before is used up."""
    for item in stage.folds.fold([ReadyStep(step, blocks_of(recipe, done, names), {})]):
        stage.windows[item.window] = item.entries
    return stage


def finish(stage: Stage, steps: int) -> Stage:
    """Close the window that is still open."""
    for item in stage.folds.finish(steps):
        stage.windows[item.window] = item.entries
    return stage


def taken(stage: Stage, window: int) -> list[Part]:
    """Return the parts of a window that is complete; one of which nothing came is empty."""
    return [(*(entry.place or ((), ())), entry.state) for entry in stage.windows.get(window, ())]


def left(stage: Stage, window: int, *_: object) -> Stage:
    """Return the stage without windows up to this one; what else is given is waited for, as it is read from it."""
    stage.windows = {number: entries for number, entries in stage.windows.items() if number > window}
    return stage


def told(stage: Stage, window: int) -> list[tuple[Place, Entry]]:
    """Return what is known of the parts of a window, without their states."""
    return [
        (entry.place or ((), ()), Entry(entry.key, entry.steps, entry.first, entry.last, entry.time, entry.place, {}))
        for entry in stage.windows.get(window, ())
    ]


def read_only(array: Array) -> Array:
    """Return an array as a batch holds it."""
    view = np.asarray(array, order="C").view()
    view.flags.writeable = False
    return view
