# SPDX-License-Identifier: Apache-2.0
"""Over the members of an ensemble whose groups lie across ranks and staging nodes."""

import numpy as np

from tests.end_to_end.conftest import Start
from tests.end_to_end.programs.members import MEMBERS, STEPS, value
from tests.end_to_end.runs import program

RANKS = 3


def test_members_of_all_ranks_are_folded_together(start: Start) -> None:
    operators = {
        "spread": {"use": "moments", "of": "u", "over": "member"},
        "pooled": {"use": "moments", "of": "u", "over": ["member", "step"], "window": 2},
        "indices": {"use": "sobol", "of": "u", "parameters": 1, "until": {"interval": 2}},  # which all intervals are
    }
    left = start(*program("members"), ranks=RANKS, nodes=2, operators=operators).wait()
    assert left.status == 0, left.stderr
    fields = np.array([[value(member, n) for member in range(RANKS * MEMBERS)] for n in range(STEPS)])
    spread, pooled, indices = (left.results(name) for name in operators)
    assert spread["mean"].dims == ("window", "y", "x")
    assert spread["mean"].attrs["cell_methods"] == "member: mean"
    np.testing.assert_array_equal(spread["first_step"], np.arange(STEPS))
    np.testing.assert_allclose(spread["mean"], fields.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(spread["variance"], fields.var(axis=1, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(pooled["mean"][:2], fields[:4].reshape(2, 24, 2, 3).mean(axis=1), rtol=1e-12)
    groups = fields.reshape(STEPS, 4, 3, 2, 3)
    np.testing.assert_array_equal(indices["groups"], 4)
    for n in range(STEPS):
        for cell in np.ndindex(2, 3):
            a, b, c = (groups[n, :, role, *cell] for role in range(3))
            np.testing.assert_allclose(indices["first"][n, 0, *cell], np.corrcoef(b, c)[0, 1], rtol=1e-10)
            np.testing.assert_allclose(indices["total"][n, 0, *cell], 1 - np.corrcoef(a, c)[0, 1], rtol=1e-10)
    (fired,) = left.events("rule-fired")
    assert (fired["by"], fired["step"]) == ("rule:indices_until", 0)
