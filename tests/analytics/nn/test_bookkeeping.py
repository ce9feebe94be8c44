# SPDX-License-Identifier: Apache-2.0
"""The limiter's bound, the held-out set's two promises, and the ledger."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.nn.heldout import Heldout
from analytics.nn.ledger import Ledger
from analytics.nn.limiter import Limiter
from insitu.errors import OperatorError

COLUMN = {"x": ((2,), np.dtype("f4"))}


def rows_of(ids: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": np.repeat(ids, 2).reshape(-1, 2).astype("f4")}


def origins_of(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids % 3, ids // 3, ids * 0], axis=1).astype(np.int64)


@given(st.floats(0.1, 50), st.floats(0, 40), st.lists(st.one_of(st.integers(1, 30), st.none()), max_size=80))
def test_new_samples_per_batch_stay_within_the_slack(ratio: float, above: float, actions: list[int | None]) -> None:
    slack = (ratio + 1) / 2 + above
    limiter = Limiter(ratio, slack)
    limiter.train()
    for action in actions:
        if action is None and limiter.ready:
            limiter.train()
        elif action is not None:
            limiter.take(min(action, limiter.room))
        assert abs(limiter.credit) <= slack * (1 + 1e-12)  # both are sums of floats
        assert limiter.ready or limiter.room, "one side may always move"


def test_a_slack_that_stops_both_sides_is_refused() -> None:
    with pytest.raises(OperatorError, match=r"slack: 2 lets neither side move at ratio: 8 .* take 4.5 or more"):
        Limiter(8, 2)


@given(
    st.integers(0, 12),
    st.floats(0.05, 0.95),
    st.lists(st.integers(1, 20), min_size=1, max_size=20),
    st.integers(0, 5),
)
def test_what_is_held_out_is_never_trained_on(samples: int, share: float, puts: list[int], seed: int) -> None:
    heldout, trained, came = Heldout(COLUMN, samples, share, seed), set[int](), 0
    for number in puts:
        ids = np.arange(came, came + number, dtype=np.uint32)
        passed, rows = heldout.exchange(origins_of(ids), ids, rows_of(ids))
        came += number
        np.testing.assert_array_equal(rows["x"], rows_of(passed)["x"])
        assert not trained & set(passed.tolist()), "no sample is passed on twice"
        trained |= set(passed.tolist())
        held = set(heldout.ids.tolist())
        assert not held & trained
        assert held | trained == set(range(came)), "no sample is lost"
        assert len(held) <= samples
        np.testing.assert_array_equal(heldout.rows()["x"], rows_of(heldout.ids)["x"])


def test_the_held_out_set_is_uniform_over_the_stream_and_the_same_in_any_order() -> None:
    ids, times = np.arange(400, dtype=np.uint32), np.zeros(400)
    for seed in range(300):
        there, back = Heldout(COLUMN, 20, 0.5, seed), Heldout(COLUMN, 20, 0.5, seed)
        for part in np.array_split(ids, 7):
            there.exchange(origins_of(part), part, rows_of(part))
        for part in np.array_split(ids[::-1], 3):
            back.exchange(origins_of(part), part, rows_of(part))
        assert set(there.ids.tolist()) == set(back.ids.tolist())
        times[there.ids] += 1
    by_quarter = times.reshape(4, 100).sum(axis=1)
    assert by_quarter.sum() == 300 * 20
    # Each quarter is binomial (6000, 1/4), deviation 33.5: four of these.
    np.testing.assert_allclose(by_quarter, 1500, atol=134)


def test_a_loaded_held_out_set_goes_on() -> None:
    ids = np.arange(60, dtype=np.uint32)
    whole, first, second = (Heldout(COLUMN, 6, 0.5, 3) for _ in range(3))
    whole.exchange(origins_of(ids), ids, rows_of(ids))
    first.exchange(origins_of(ids[:30]), ids[:30], rows_of(ids[:30]))
    second.load(first.state())
    second.exchange(origins_of(ids[30:]), ids[30:], rows_of(ids[30:]))
    assert set(second.ids.tolist()) == set(whole.ids.tolist())


def test_a_ledger_says_what_happened_in_which_order() -> None:
    ledger = Ledger()
    ids = ledger.arrive(origins_of(np.arange(5)))
    ledger.train(ids[[4, 1]])
    more = ledger.arrive(origins_of(np.arange(5, 7)))
    ledger.train(np.array([6, 4, 0], np.uint32))
    ledger.end()
    assert more.tolist() == [5, 6]
    assert ledger.batches == 2
    assert ledger.batch(0).tolist() == [4, 1]
    assert ledger.batch(1).tolist() == [6, 4, 0]
    assert ledger.counts().tolist() == [1, 1, 0, 0, 2, 0, 1]
    assert ledger.samples["batch"].tolist() == [0] * 5 + [1] * 2
    events = [(kind, what.tolist()) for kind, what in ledger.replay()]
    assert events == [
        ("put", origins_of(np.arange(5)).tolist()),
        ("batch", [4, 1]),
        ("put", origins_of(np.arange(5, 7)).tolist()),
        ("batch", [6, 4, 0]),
        ("end", []),
    ]
    again = Ledger()
    again.load(ledger.state())
    assert [(kind, what.tolist()) for kind, what in again.replay()] == events
    assert again.nbytes == ledger.nbytes
    assert ledger.named(np.array([4, 1, 0], np.uint32), most=2) == (
        "member 1 step 1 place 0, member 1 step 0 place 0 and 1 more"
    )
