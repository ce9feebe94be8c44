# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from insitu.dashboard import derive
from tests.dashboard.snapshots import snapshot


def test_the_shares_of_each_second_are_those_of_the_ranks_time() -> None:
    shares = derive.shares(snapshot([0.0, 1.0, 1.0], [0.0, 0.0, 0.5]))
    assert shares == {
        "at_s": [1.0, 2.0],
        "computing": [0.5, 0.75],
        "staging": [0.5, 0.0],
        "network": [0.0, 0.25],
    }


def test_no_share_is_more_than_the_whole_however_late_a_rank_says_how_long_it_waited() -> None:
    shares = derive.shares(snapshot([0.0, 9.0], [0.0, 9.0]))
    assert sum(shares[name][0] for name in derive.SHARES) == pytest.approx(1)
    assert shares["computing"] == [0.0]


def test_seconds_without_ranks_are_left_out() -> None:
    assert derive.shares(snapshot([0.0, 0.0], [0.0, 0.0], ranks=0))["at_s"] == []


@pytest.mark.parametrize(
    ("staging", "network", "fold_s", "words"),
    [
        (0.0, 0.0, 0.0, "The simulation computes: it waits for 0 %"),
        (1.0, 0.0, 0.2, "memory (1 GiB each) holds the simulation back: it waits for 50 %"),
        (1.0, 0.0, 1.9, "The folds hold the simulation back: it waits for 50 % .* fold for 95 %"),
        (0.2, 0.6, 0.0, "The network holds the simulation back: it waits for 30 %"),
    ],
)
def test_one_sentence_says_who_holds_the_run_back(staging: float, network: float, fold_s: float, words: str) -> None:
    told = snapshot([staging * k for k in range(8)], [network * k for k in range(8)], fold_s=fold_s)
    assert re.search(words.replace("(", r"\(").replace(")", r"\)"), derive.verdict(told))


def test_a_rate_is_that_of_the_last_seconds() -> None:
    told = snapshot([0.0] * 20, [0.0] * 20)
    told["timeline"]["steps"] = [0] * 10 + [7 * k for k in range(10)]
    assert derive.rate(told, "steps") == 7
    assert derive.rate({}, "steps") == 0
