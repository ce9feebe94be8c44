# SPDX-License-Identifier: Apache-2.0
import re
from typing import Any

import pytest

from insitu.dashboard import derive
from tests.dashboard.snapshots import snapshot


def test_the_shares_of_each_second_are_those_of_the_ranks_time() -> None:
    """What two ranks waited for the staging nodes is divided as these say for what their steps waited."""
    waited = {"fold": 0.6, "trainer": 0.3, "recording": 0.1, "room": 0.2}
    shares = derive.shares(snapshot([0.0, 1.0, 1.0], [0.0, 0.0, 0.5], action_s=0.1, waited=waited))
    assert {name: pytest.approx(values) for name, values in shares.items()} == {
        "at_s": [1.0, 2.0],
        "computing": [0.45, 0.7],
        "fold": [0.2, 0.0],
        "trainer": [0.15, 0.0],
        "recording": [0.05, 0.0],
        "memory": [0.1, 0.0],
        "network": [0.0, 0.25],
        "action": [0.05, 0.05],
    }


def test_a_snapshot_of_a_run_without_these_totals_has_shares() -> None:
    told = snapshot([0.0, 1.0], [0.0, 0.0])
    for name in [name for name in told["timeline"] if name.startswith(("waited", "action"))]:
        del told["timeline"][name]
    assert derive.shares(told)["memory"] == [0.5]


def test_no_share_is_more_than_the_whole_however_late_a_rank_says_how_long_it_waited() -> None:
    shares = derive.shares(snapshot([0.0, 9.0], [0.0, 9.0]))
    assert sum(shares[name][0] for name in derive.SHARES) == pytest.approx(1)
    assert shares["computing"] == [0.0]


def test_seconds_without_ranks_are_left_out() -> None:
    assert derive.shares(snapshot([0.0, 0.0], [0.0, 0.0], ranks=0))["at_s"] == []


@pytest.mark.parametrize(
    ("staging", "network", "others", "words"),
    [
        (0.0, 0.0, {}, "The simulation computes: it waits for 0 %"),
        (
            1.0,
            0.0,
            {"waited": {"fold": 1.0, "room": 0.9}},
            "memory (1 GiB each) holds the simulation back: it waits for 50 %",
        ),
        (1.0, 0.0, {"waited": {"fold": 1.9}}, "The folds hold the simulation back: it waits for 50 %"),
        (
            1.0,
            0.0,
            {"waited": {"trainer": 0.9, "fold": 0.1}},
            "The trainer holds the simulation back: it waits for 50 %",
        ),
        (1.0, 0.0, {"waited": {"recording": 1.0}}, "The recording holds the simulation back: it waits for 50 %"),
        (0.2, 0.6, {}, "The network holds the simulation back: it waits for 30 %"),
        (0.0, 0.2, {"action_s": 1.0}, "The simulation stands still for 50 % of its time: it is paused"),
    ],
)
def test_one_sentence_says_who_holds_the_run_back(
    staging: float, network: float, others: dict[str, Any], words: str
) -> None:
    told = snapshot([staging * k for k in range(8)], [network * k for k in range(8)], **others)
    assert re.search(words.replace("(", r"\(").replace(")", r"\)"), derive.verdict(told))


def test_a_rate_is_that_of_the_last_seconds() -> None:
    told = snapshot([0.0] * 20, [0.0] * 20)
    told["timeline"]["steps"] = [0] * 10 + [7 * k for k in range(10)]
    assert derive.rate(told, "steps") == 7
    assert derive.rate({}, "steps") == 0
