# SPDX-License-Identifier: Apache-2.0
"""Windows that overlap yield what a fold of their steps yields, for every operator that folds by steps."""

from typing import Any

import numpy as np
import pytest

from analytics.autocorrelation import Autocorrelation
from analytics.covariance import Covariance
from analytics.dmd import DMD
from analytics.exceedance import Exceedance
from analytics.extremes import Extremes
from analytics.histogram import Histogram
from analytics.moments import Moments
from analytics.msd import Msd
from analytics.pca import PCA
from analytics.rdf import Rdf
from analytics.spectrum import Spectrum
from insitu.model import Block, Step, Variable
from insitu.operator import Operator
from insitu.staging.assembler import ReadyStep
from insitu.staging.folds import OperatorFolds
from insitu.staging.merging import Recipe
from insitu.testing import batch

FIELD = Variable("u", np.dtype("f8"), (4, 3), ("y", "x"))
ATOMS = Variable("u", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
STEPS = 40

CASES: list[tuple[type[Operator], dict[str, Any], Variable]] = [
    (Moments, {"over": "step", "orders": 4}, FIELD),
    (Moments, {"over": ["step", "space"]}, ATOMS),
    (Histogram, {"over": "step", "bins": 5, "range": (-1, 1)}, FIELD),
    (Covariance, {"over": "step"}, FIELD),
    (Exceedance, {"over": "step", "threshold": 0.3}, FIELD),
    (Extremes, {"over": ["step", "space"], "largest": 3}, FIELD),
    (Autocorrelation, {"over": "step", "lags": 4}, FIELD),
    (PCA, {"components": 5}, FIELD),
    (DMD, {"components": 7}, FIELD),
    (Rdf, {"over": ["step", "space"], "box": (2, 2, 2), "cutoff": 1, "bins": 4}, ATOMS),
]


@pytest.mark.parametrize(("window", "every"), [(10, 4), (12, 3), (9, 1), ("6 time", "2.5 time")])
@pytest.mark.parametrize(("kind", "keys", "of"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_sliding_window_equals_a_fold_of_its_steps(
    kind: type[Operator], keys: dict[str, Any], of: Variable, window: Any, every: Any
) -> None:
    operator = kind.model_validate({"of": "u", "window": window, "every": every, **keys})
    rng = np.random.default_rng(2)
    data = [rng.normal(size=of.shape or (6, 3)) for _ in range(STEPS)]
    steps = [Step(n, 3 * n, 0.5 * n) for n in range(STEPS)]
    folds = OperatorFolds("one", operator)
    ready = [ReadyStep(step, {0: {"u": Block(of, (0, 0), array)}}, {}) for step, array in zip(steps, data, strict=True)]
    done = [item for first in range(0, STEPS, 7) for item in folds.fold(ready[first : first + 7])]
    done += list(folds.finish(STEPS))
    recipe = Recipe.of("one", operator, {"u": of})
    assert len(done) > 4
    for item in done:
        inside = range(item.since, item.upto + 1)
        whole = operator.init()
        for n in inside:
            one = batch([of], {"u": [data[n]]}, first=n)
            whole = operator.update(whole, type(one)((steps[n],), one.variables, one.start, one.arrays))
        found = recipe.assemble([(*(entry.place or ((), ())), entry.state) for entry in item.entries])[0]
        expected = operator.finalize(whole)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-7, atol=1e-9, err_msg=name)
        if isinstance(window, int):
            assert item.since == every * item.window
            assert item.full == (len(inside) == window)


@pytest.mark.parametrize("length", [{"every": 2}, {"window": "5 time"}])
def test_what_folds_by_the_place_in_a_window_says_that_windows_cannot_slide(length: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not possible here; windows are a number of steps"):
        Spectrum(**{"of": "u", "over": "step", "segment": 4, "window": 10, **length})
    with pytest.raises(ValueError, match="is not possible here"):
        Msd(**{"of": "u", "id": "id", "over": ["step", "space"], "window": 10, **length})
