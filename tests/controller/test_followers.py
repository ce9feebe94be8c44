# SPDX-License-Identifier: Apache-2.0
"""Results on their way to consoles, from any thread."""

import threading

import numpy as np

from insitu.controller.followers import RESULT_BYTES, Followers
from insitu.results import Provenance, Result


def result(index: int, operator: str = "stats", size: int = 3) -> Result:
    return Result(operator, Provenance(index, index, index, 0.5 * index, 1, 0, True), {"mean": np.full(size, index)})


def test_who_follows_gets_the_newest_and_then_each_once_in_order() -> None:
    followers = Followers(["stats", "other"], ["stats"])
    woken = threading.Semaphore(0)
    followers.begin(woken.release)
    for index in range(3):
        followers.show(result(index))
    assert followers.take() == [], "nobody follows"
    newest = followers.follow("stats")
    assert newest is not None
    assert newest.index == 2
    numbers = list(range(3, 500))
    thread = threading.Thread(target=lambda: [followers.show(result(index)) for index in numbers])
    thread.start()
    taken: list[int] = []
    while len(taken) < len(numbers):
        assert woken.acquire(timeout=60)
        taken += [shown.index for shown in followers.take()]
    thread.join()
    assert taken == numbers


def test_what_cannot_be_followed_says_why() -> None:
    followers = Followers(["stats", "other"], ["stats"])
    for operator, why in (
        ("starts", "no operator is called 'starts'; there are stats, other"),
        ("other", "nothing is made of what it folds; name it under outputs"),
    ):
        shown = followers.follow(operator)
        assert shown is not None
        assert shown.why == why
    assert followers.follow("stats") is None
    followers.show(result(0, size=RESULT_BYTES))
    followers.show(Result("stats", Provenance(1, -1, -1, float("nan"), 0, 0, False), {}))
    large, empty = followers.take()
    assert large.why.startswith("a result has 8388608 bytes")
    assert (empty.why, empty.time, empty.last_step) == ("", None, -1)
