# SPDX-License-Identifier: Apache-2.0
"""Samples of steps: which numbers go where."""

import numpy as np
import pytest

from analytics.nn.steps import Sampler
from insitu.errors import OperatorError
from insitu.learner import Taken
from insitu.model import Step, Variable

RNG = np.random.default_rng(3)
U = Variable("u", np.dtype("f8"), (3, 4, 5), ("member", "y", "x"))
V = Variable("v", np.dtype("f8"), (4, 5), ("y", "x"))
P = Variable("p", np.dtype("f4"), (3, 2), ("member", "number"))
S = Variable("s", np.dtype("i4"), (), ())
X = Variable("x", np.dtype("f8"), None, ("particle", "axis"), row=(3,))
M = Variable("m", np.dtype("f8"), None, ("particle",))
ALL = {each.name: each for each in (U, V, P, S, X, M)}


def taken(sequence: int = 0, rows: int = 6) -> Taken:
    fields = {name: RNG.normal(size=each.shape or ()) for name, each in ALL.items() if each.shape is not None}
    fields["s"] = np.array(7, "i4")
    fields |= {"x": RNG.normal(size=(rows, 3)), "m": RNG.normal(size=rows)}
    return Taken(Step(sequence, 10 * sequence, 0.25 * sequence), fields)


def test_a_step_has_a_sample_for_each_member_and_what_has_none_is_the_same_for_all() -> None:
    step = taken(2)
    found = Sampler(["p", "time", "s"], ["u"], "step", ALL).samples(step)
    assert found is not None
    expected = np.concatenate([step.fields["p"], np.full((3, 1), 0.5), np.full((3, 1), 7)], axis=1)
    np.testing.assert_array_equal(found.inputs, expected.astype(np.float32))
    np.testing.assert_array_equal(found.targets, step.fields["u"].astype(np.float32))
    np.testing.assert_array_equal(found.origins(), [[0, 2, 0], [1, 2, 0], [2, 2, 0]])


def test_fields_of_one_shape_become_channels_and_numbers_channels_of_one_value() -> None:
    step = taken(4)
    sampler = Sampler(["u", "v", "time"], None, "step", ALL)
    assert sampler.shapes.inputs == (3, 4, 5)
    found = sampler.samples(step)
    assert found is not None
    assert found.targets is None
    for member in range(3):
        expected = np.stack([step.fields["u"][member], step.fields["v"], np.full((4, 5), 1.0)])
        np.testing.assert_allclose(found.inputs[member], expected, rtol=1e-6)


def test_cells_have_their_coordinates_and_what_their_member_has() -> None:
    step = taken(1)
    found = Sampler(["@y", "@x", "p", "v"], ["u"], "cell", ALL).samples(step)
    assert found is not None
    y, x = np.meshgrid(np.linspace(0, 1, 4), np.linspace(0, 1, 5), indexing="ij")
    for member in range(3):
        rows = slice(20 * member, 20 * (member + 1))
        p = np.broadcast_to(step.fields["p"][member], (20, 2))
        expected = np.column_stack([y.ravel(), x.ravel(), p, step.fields["v"].ravel()])
        np.testing.assert_allclose(found.inputs[rows], expected, rtol=1e-6)
        np.testing.assert_allclose(found.targets[rows, 0], step.fields["u"][member].ravel(), rtol=1e-6)
        np.testing.assert_array_equal(found.place[rows], np.arange(20))


def test_some_cells_are_drawn_by_lot_the_same_for_the_same_step() -> None:
    step = taken(5)
    whole = Sampler(["@x", "u"], ["u"], "cell", ALL).samples(step)
    some, again = (Sampler(["@x", "u"], ["u"], "cell", ALL, per_step=7).samples(step) for _ in range(2))
    assert whole is not None
    assert some is not None
    assert again is not None
    chosen = np.asarray(some.member) * 20 + some.place
    assert len(np.unique(chosen)) == len(some) == 7
    np.testing.assert_array_equal(some.inputs, whole.inputs[chosen])
    np.testing.assert_array_equal(some.inputs, again.inputs)


@pytest.mark.parametrize("rows", [0, 1, 6])
def test_each_particle_is_a_sample_however_many_there_are(rows: int) -> None:
    step = taken(0, rows)
    found = Sampler(["x", "s"], ["m"], "row", {name: ALL[name] for name in "xsm"}).samples(step)
    if not rows:
        assert found is None
        return
    assert found is not None
    np.testing.assert_allclose(found.inputs, np.column_stack([step.fields["x"], np.full(rows, 7)]), rtol=1e-6)
    np.testing.assert_allclose(found.targets[:, 0], step.fields["m"], rtol=1e-6)


def test_a_lag_is_counted_in_published_steps_and_a_gap_leaves_steps_out() -> None:
    sampler = Sampler(["v[-2]", "v[-1]"], ["v"], "step", {"v": V})
    steps = {sequence: taken(sequence) for sequence in (0, 1, 2, 3, 5, 6, 7)}
    made = {sequence: sampler.samples(step) for sequence, step in steps.items()}
    assert [sequence for sequence, found in made.items() if found is not None] == [2, 3, 7]
    for sequence in (2, 3, 7):
        expected = np.stack([steps[sequence - 2].fields["v"], steps[sequence - 1].fields["v"]])
        np.testing.assert_allclose(made[sequence].inputs[0], expected, rtol=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("inputs", "sample", "message"),
    [
        (["@z", "u"], "cell", "@z is no coordinate of a sample .cells have y, x."),
        (["@x", "u"], "step", "only with sample: cell"),
        (["x"], "step", "'x' is joined over the ranks and its rows change in number; take sample: row"),
        (["x[-1]"], "row", "'x' is joined, and its rows of a step before may be others"),
        (["time"], "step", "name no variable"),
    ],
)
def test_what_makes_no_sample_is_said(inputs: list[str], sample: str, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        Sampler(inputs, None, sample, ALL)  # type: ignore[arg-type]
