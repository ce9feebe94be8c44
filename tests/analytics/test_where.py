# SPDX-License-Identifier: Apache-2.0
"""The same results wherever an operator folds: on one staging node, on that of each machine, inside the ranks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from insitu.config.plugins import plugin_entry
from insitu.errors import OperatorError
from insitu.model import Block, Step
from insitu.operator import Batch, Operator
from insitu.staging.assembler import ReadyStep
from insitu.staging.folds import Folds, Yield
from insitu.staging.merging import Part, Recipe
from insitu.staging.rankside import Committed, RankFolds
from insitu.staging.shipped import Shipped, merged
from insitu.testing import cut, samples
from insitu.wire.codec import decode, encode
from insitu.wire.messages import Event, Ship
from tests.analytics.test_laws import CASES, MEMBERS, OF_MEMBERS, numbered

#: Which staging node each rank feeds, and how many steps are committed at once.
HOMES, TOGETHER = (0, 0, 1), (3, 8, 1)

TRIED = [
    *(
        pytest.param(make(way), next(iter(several.values())), id=repr(make(way)))
        for make, ways, several in CASES
        for way in ways
    ),
    *(pytest.param(operator, [MEMBERS], id=repr(operator)) for operator in OF_MEMBERS),
]


def blocks_of(ranks: Sequence[Batch], rank: int, step: int) -> dict[str, Block]:
    """What a rank has of a step: a scalar is rank 0's."""
    if rank >= len(ranks):
        return {}
    part = ranks[rank]
    return {name: Block(part.variables[name], part.start[name], arrays[step]) for name, arrays in part.arrays.items()}


def at_nodes(operator: Operator, ranks: Sequence[Batch], homes: Sequence[int]) -> list[Yield]:
    """Fold on the staging nodes that the ranks feed."""
    steps = list(ranks[0].steps)
    yields: list[Yield] = []
    for node in sorted(set(homes)):
        fed = [rank for rank, home in enumerate(homes) if home == node]
        folds = Folds({"it": operator}, 1 << 30)
        ready = [ReadyStep(step, {rank: blocks_of(ranks, rank, n) for rank in fed}, {}) for n, step in enumerate(steps)]
        yields += [each for each in [*folds.fold(ready), *folds.finish(len(steps))] if isinstance(each, Yield)]
    return yields


def on_ranks(operator: Operator, ranks: Sequence[Batch], homes: Sequence[int]) -> list[Yield]:
    """Fold on the ranks; their states go over the wire to their nodes, and are merged there."""
    steps = list(ranks[0].steps)
    nodes = {
        node: Shipped(frozenset({"it"}), tuple(rank for rank, home in enumerate(homes) if home == node))
        for node in set(homes)
    }
    yields: list[Yield] = []
    for rank, home in enumerate(homes):
        folds = RankFolds(rank, 0, {"it": plugin_entry(operator)}, 1 << 30)
        assert folds.failures == []
        said: list[Ship | Event] = []
        begin = 0
        for number in TOGETHER:
            some = [
                Committed(steps[n], blocks_of(ranks, rank, n)) for n in range(begin, min(len(steps), begin + number))
            ]
            said += folds.fold(some) if some else []
            begin += number
        for message in [*said, *folds.finish(len(steps))]:
            assert isinstance(message, Ship), message
            ship = decode([bytes(frame) for frame in encode(message)])
            assert isinstance(ship, Ship)
            yields += [merged(operator, whole) for whole in nodes[home].take(rank, ship)]
    for shipped in nodes.values():
        assert shipped.finish() == ([], [])
    return yields


def results(operator: Operator, yields: Sequence[Yield], ranks: Sequence[Batch]) -> dict[Any, dict[str, Any]]:
    """Put together what all nodes have handed over, as the controller does."""
    recipe = Recipe.of("it", operator, ranks[0].variables)
    parts: dict[Any, list[Part]] = {}
    for done in yields:
        for entry in done.entries:
            parts.setdefault((done.window, entry.key), []).append((*(entry.place or ((), ())), entry.state))
    return {key: recipe.assemble(parts[key])[0] for key in sorted(parts)}


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave kernels of dtypes that nothing here has uncompiled."""
    for kind in {type(each.values[0]) for each in TRIED}:
        monkeypatch.setattr(kind, "warm_up", lambda self: None)


@pytest.mark.usefixtures("cold")
@pytest.mark.parametrize(("operator", "inputs"), TRIED)
def test_results_are_the_same_wherever_an_operator_folds(operator: Operator, inputs: list[Any]) -> None:
    ranks = cut(samples(inputs, sizes=(sum(TOGETHER),), values=numbered)[0], len(HOMES))
    there = operator.model_copy(update={"where": "rank"})
    expected = results(operator, at_nodes(operator, ranks, [0] * len(HOMES)), ranks)
    for yields in (at_nodes(operator, ranks, HOMES), on_ranks(there, ranks, HOMES)):
        found = results(operator, yields, ranks)
        assert found.keys() == expected.keys()
        for key, arrays in expected.items():
            for name, values in arrays.items():
                _same(name, found[key][name], values)


def _same(name: str, found: Any, expected: Any) -> None:
    if expected.dtype.kind in "fc":
        size = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * size, err_msg=name)
    else:
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_an_operator_that_a_rank_cannot_prepare_is_told_with_the_cure() -> None:
    folds = RankFolds(3, 0, {"lost": {"use": "no_such_lab.ops:Vorticity", "of": ["u"]}}, 1 << 20)
    [event] = folds.failures
    assert event.kind == "operator-stopped"
    assert event.details["operator"] == "lost"
    assert "rank 3 cannot prepare it (the module no_such_lab.ops cannot be imported" in event.text
    assert event.text.endswith("or take where: staging")
    assert folds.fold([Committed(Step(0, 0, 0.0), {})]) == []


def test_states_beyond_the_ranks_memory_stop_the_operator() -> None:
    operator, inputs = TRIED[0].values
    ranks = cut(samples(inputs, sizes=(2,))[0], 2)
    folds = RankFolds(1, 0, {"it": plugin_entry(operator)}, 8)
    [event] = folds.fold([Committed(ranks[1].steps[0], blocks_of(ranks, 1, 0))])
    assert isinstance(event, Event)
    assert OperatorError.__name__ in event.text
    assert "on rank 1" in event.text
