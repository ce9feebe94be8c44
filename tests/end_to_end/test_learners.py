# SPDX-License-Identifier: Apache-2.0
"""Learners are fed whole steps from several staging nodes, and neither their failure nor their death ends a run."""

import numpy as np

from tests.end_to_end.conftest import Start
from tests.end_to_end.programs.members import MEMBERS, STEPS, value
from tests.end_to_end.runs import program, total

SUMS = "tests.learning.sums:Sums"
RANKS = 3


def test_a_learner_gets_every_step_whole_and_another_may_fail(start: Start) -> None:
    operators = {
        "sums": {"use": SUMS, "of": "u"},
        "broken": {"use": SUMS, "of": "u", "fail_at": 2},
        "fold": total(over=["step", "space"], window=1),
    }
    rules = [{"when": "sums.cells > 0", "notify": "a learner spoke", "once": True}]
    left = start(*program("members"), ranks=RANKS, nodes=2, operators=operators, steering=rules).wait()
    fields = np.array([[value(member, n) for member in range(RANKS * MEMBERS)] for n in range(STEPS)])
    sums = left.results("sums")
    np.testing.assert_array_equal(sums["first_step"], np.arange(STEPS))
    np.testing.assert_allclose(sums["total"], fields.sum(axis=(1, 2, 3)), rtol=1e-12)
    np.testing.assert_array_equal(sums["cells"], fields[0].size)
    assert sums["complete"].values.all()
    assert (left.directory / "checkpoints" / "sums.closed").exists()
    assert left.results("fold").sizes["window"] == STEPS
    assert left.status == 1
    assert left.report["reasons"] == ["operator 'broken': no sums at step 2"]
    assert [event["operator"] for event in left.events("operator-stopped")] == ["broken"]
    assert len(left.events("rule-fired")) == 1
