# SPDX-License-Identifier: Apache-2.0
"""What is read back from a store is what was stored in it."""

from pathlib import Path

import numpy as np
import pytest

from analytics.histogram import Histogram
from analytics.moments import Moments
from insitu.dashboard.stored import Store, kind_of, spread
from insitu.model import Variable
from insitu.results import Provenance, Result
from insitu.results.store import ResultStore

FIELD = Variable("u", np.dtype("f8"), (30, 40), ("y", "x"), units="K")
CELLS = np.arange(1200.0).reshape(30, 40)


def provenance(row: int) -> Provenance:
    return Provenance(row, 10 * row, 10 * row + 9, 0.5 * row, 10, 0, complete=True)


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    store = ResultStore.create(tmp_path / "results.zarr", {})
    store.declare("series", Moments(of="u", over="space", extremes=False), {"u": FIELD}, {})
    store.declare("cells", Moments(of="u", over="step", extremes=False), {"u": FIELD}, {})
    spread = Histogram(of="u", over=("step", "space"), bins=4, range=(0.0, 8.0))
    store.declare("spread", spread, {"u": FIELD}, {})
    return store


def append_series(store: ResultStore, first: int, count: int) -> None:
    store.append(
        [
            Result(
                "series", provenance(k), {"count": np.int64(1), "mean": np.float64(k * k), "variance": np.float64(0)}
            )
            for k in range(first, first + count)
        ]
    )


def test_a_series_grows_with_its_store(store: ResultStore, tmp_path: Path) -> None:
    found = Store(tmp_path / "results.zarr")
    assert found.refresh()
    mean = found.results["series.mean"]
    assert (kind_of(mean), mean.title, found.rows(mean)) == ("series", "series.mean [K]", 0)
    for first in (0, 5):
        append_series(store, first, 5)
        assert found.refresh()
        assert not found.refresh()
        series = found.series(mean)
        assert series["value"].tolist() == [k * k for k in range(first + 5)]
        assert series["step"].tolist() == list(range(first + 5))


def test_a_row_without_steps_stands_at_the_newest_before(store: ResultStore, tmp_path: Path) -> None:
    row = {"count": np.arange(4), "edges": np.linspace(0, 8, 5)} | dict.fromkeys(
        ("underflow", "overflow", "nan"), np.int64(0)
    )
    nothing = Provenance(2, -1, -1, np.nan, 0, 0, complete=True)
    store.append([Result("spread", given, row) for given in (provenance(0), provenance(1), nothing)])
    found = Store(tmp_path / "results.zarr")
    found.refresh()
    assert found.together("spread", ["nan"])["step"].tolist() == [9, 19, 19]


def test_a_profile_lies_where_its_bins_are(store: ResultStore, tmp_path: Path) -> None:
    zero = np.int64(0)
    row = {"count": np.arange(4), "edges": np.linspace(0, 8, 5), "underflow": zero, "overflow": zero, "nan": zero}
    store.append([Result("spread", provenance(0), row)])
    found = Store(tmp_path / "results.zarr")
    found.refresh()
    where, values = found.profile(found.results["spread.count"])
    assert where.tolist() == [1, 3, 5, 7]
    assert values.tolist() == [0, 1, 2, 3]
    assert kind_of(found.results["spread.edges"]) == ""


def test_a_field_is_thinned_to_what_is_asked_for(store: ResultStore, tmp_path: Path) -> None:
    count = np.ones(CELLS.shape, np.int64)
    store.append([Result("cells", provenance(0), {"count": count, "mean": CELLS, "variance": -CELLS})])
    found = Store(tmp_path / "results.zarr")
    found.refresh()
    mean = found.results["cells.mean"]
    assert kind_of(mean) == "field"
    np.testing.assert_array_equal(found.field(mean, 0, 1200), CELLS.astype("f4"))
    np.testing.assert_array_equal(found.field(mean, 0, 300), CELLS[::2, ::2].astype("f4"))


def test_there_need_not_be_a_store(tmp_path: Path) -> None:
    found = Store(tmp_path / "nowhere.zarr")
    assert not found.refresh()
    assert found.results == {}


def test_no_peak_is_lost_when_a_line_is_thinned() -> None:
    values = np.zeros(100_000)
    values[[777, 54_321]] = 5, -5
    values[10:20] = np.nan
    kept = spread(values, 2000)
    assert {777, 54_321} <= set(kept.tolist())
    assert len(kept) <= 2000
    assert np.all(np.diff(kept) > 0)
