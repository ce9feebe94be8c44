# SPDX-License-Identifier: Apache-2.0
import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from insitu.errors import OperatorError, RunError
from insitu.model import Variable
from insitu.results import Provenance, Result
from insitu.results import store as store_module
from insitu.results.chunks import slabs
from insitu.results.groups import COORDINATES_OF
from insitu.results.store import ResultStore, write_slab
from tests.results.means import Means, field

CELLS = Means(of="u", over="step", window=10)
SERIES = Means(of="u", over="space")
BOTH = Means(of="u", over=("step", "space"), window=10)


def window(k: int, complete: bool = True) -> Provenance:
    return Provenance(k, 100 * k, 100 * k + 90, 0.5 * k, 10, 0, complete)


def row(k: int, shape: tuple[int, ...] = (4, 6), name: str = "stats") -> Result:
    """A row whose every value is `k`."""
    arrays = {"mean": np.full(shape, float(k)), "twice": np.full((2, *shape), k, "f4"), "kinds": np.full(3, k)}
    return Result(name, window(k), arrays)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.zarr"


@pytest.fixture
def store(path: Path) -> ResultStore:
    store = ResultStore.create(path, {"run": "a-run"})
    store.declare("stats", CELLS, field(), {"config_hash": "abc", "ranks": [0, 1]})
    return store


def opened(path: Path, group: str = "stats", **options: object) -> xr.Dataset:
    return xr.open_zarr(path, group=group, chunks=None, **options).load()


def each_row_holds_its_number(dataset: xr.Dataset) -> bool:
    return all(bool((arrays == dataset["window"]).all()) for arrays in dataset.data_vars.values())


class TestWhatIsStored:
    def test_rows_come_back_as_they_were_appended(self, store: ResultStore, path: Path) -> None:
        store.append([row(0)])
        store.append([row(1), row(2)])
        dataset = opened(path)
        assert dict(dataset.sizes) == {"window": 3, "y": 4, "x": 6, "time_and_again": 2, "kind": 3}
        for name, arrays in dataset.data_vars.items():
            for k in range(3):
                np.testing.assert_array_equal(arrays[k], row(k).arrays[str(name)])
                assert arrays.dtype == row(k).arrays[str(name)].dtype

    def test_provenance_becomes_coordinates(self, store: ResultStore, path: Path) -> None:
        store.append([row(0), row(1)])
        dataset = opened(path)
        assert set(dataset.coords) == {"window", "first_step", "last_step", "time", "steps", "dropped", "complete"}
        assert dataset.coords["window"].values.tolist() == [0, 1]
        assert dataset.coords["first_step"].values.tolist() == [0, 100]
        assert dataset.coords["last_step"].values.tolist() == [90, 190]
        assert dataset.coords["time"].values.tolist() == [0.0, 0.5]
        assert dataset.coords["steps"].values.tolist() == [10, 10]
        assert dataset.coords["complete"].dtype == bool

    def test_every_field_of_a_provenance_is_a_coordinate(self) -> None:
        assert {*Provenance.__dataclass_fields__} == {"index", *COORDINATES_OF["window"]} - {"window"}

    def test_attributes_speak_cf(self, store: ResultStore, path: Path) -> None:
        dataset = opened(path)
        assert dataset["mean"].attrs == {"units": "K", "long_name": "mean of it", "cell_methods": "step: mean"}
        assert dataset.attrs["config_hash"] == "abc"
        assert json.loads(dataset.attrs["operator"]) == {
            "of": ["u"],
            "over": ["step"],
            "window": 10,
            "every": None,
            "where": "staging",
            "twice": 2,
        }
        tree = xr.open_datatree(path, engine="zarr")
        assert tree.attrs == {"Conventions": "CF-1.11", "run": "a-run"}

    def test_a_dimension_that_a_result_keeps_is_not_among_the_reduced(self, path: Path) -> None:
        class AlongX(Means):
            def describe(self, inputs: object) -> dict[str, Variable]:
                return {"mean": Variable("mean", np.dtype("f8"), (6,), ("x",))}

        store = ResultStore.create(path, {})
        store.declare("stats", AlongX(of="u", over=("step", "space")), field(), {})
        assert opened(path)["mean"].attrs["cell_methods"] == "step: y: mean"

    def test_single_steps_lead_with_the_authors_index(self, store: ResultStore, path: Path) -> None:
        store.declare("series", SERIES, field(), {})
        for batch in np.split(np.arange(3000), [1, 700, 2047]):
            store.append(
                [Result("series", Provenance(7 * k, 7 * k, 7 * k, k / 4, 1, 0, True), row(k, ()).arrays) for k in batch]
            )
        dataset = opened(path, "series")
        assert set(dataset.coords) == {"step", "time", "complete"}
        np.testing.assert_array_equal(dataset["step"], 7 * np.arange(3000))
        np.testing.assert_array_equal(dataset["mean"], np.arange(3000.0))
        np.testing.assert_array_equal(dataset["time"], np.arange(3000) / 4)
        assert dataset["mean"].attrs["cell_methods"] == "y: x: mean"
        assert zarr.open_array(path, path="series/mean").chunks == (1024,)

    def test_a_tree_holds_every_operator_whether_it_is_read_consolidated_or_not(
        self, store: ResultStore, path: Path
    ) -> None:
        store.declare("both", BOTH, field(), {})
        store.append([row(0)])
        store.append([row(0, (), "both"), row(1, (), "both")])
        for consolidated in (None, False):
            with xr.open_datatree(path, engine="zarr", consolidated=consolidated) as tree:
                assert set(tree.children) == {"stats", "both"}
                assert tree["both/mean"].attrs["cell_methods"] == "step: y: x: mean"
                assert (tree["stats"].sizes["window"], tree["both"].sizes["window"]) == (1, 2)

    def test_units_of_time_stay_numbers(self, path: Path) -> None:
        store = ResultStore.create(path, {})
        store.declare("stats", BOTH, field(units="s"), {})
        store.append([row(3, ())])
        assert opened(path)["mean"].values.tolist() == [3.0]

    def test_an_operator_without_cells_in_its_input_is_stored(self, path: Path) -> None:
        store = ResultStore.create(path, {})
        store.declare("stats", CELLS, field(()), {})
        store.append([row(5, ())])
        assert opened(path)["mean"].values.tolist() == [5.0]


def sees_whole_arrays(path: Path) -> int:
    """Read as xarray does; return how many windows there are, or -1 where one is not whole."""
    dataset = opened(path)
    return dataset.sizes["window"] if each_row_holds_its_number(dataset) else -1


def sees_whole_chunks(path: Path) -> int:
    """Read one array by itself, without the consolidated metadata."""
    rows = zarr.open_array(path, path="stats/mean", mode="r")[:, 0, 0]
    return len(rows) if np.array_equal(rows, np.arange(len(rows))) else -1


class TestWhoeverReadsMeanwhile:
    def test_sees_whole_rows_and_no_hole(self, store: ResultStore, path: Path) -> None:
        ended, seen = threading.Event(), set[int]()

        def read_on() -> None:
            while not ended.is_set():
                seen.update((sees_whole_arrays(path), sees_whole_chunks(path)))

        reader = threading.Thread(target=read_on)
        reader.start()
        try:
            for k in range(25):
                store.append([row(k)])
        finally:
            ended.set()
            reader.join()
        assert -1 not in seen
        assert len(seen) > 2

    def test_does_not_see_what_was_written_and_not_published(self, store: ResultStore, path: Path) -> None:
        for name, values in row(0).arrays.items():
            write_slab(path, "stats", name, 0, tuple(slice(0, n) for n in values.shape), values)
        assert opened(path).sizes["window"] == 0
        store.publish("stats", [window(0)])
        np.testing.assert_array_equal(opened(path)["mean"][0], 0.0)
        assert store.rows("stats") == 1


class TestLargeRows:
    def test_slabs_written_apart_make_one_row(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("insitu.results.chunks.slab_shape.__defaults__", (64,))
        monkeypatch.setattr("insitu.results.chunks.slabs.__defaults__", (64,))
        store = ResultStore.create(path, {})
        store.declare("stats", CELLS, field((7, 5)), {})
        for k in range(2):
            values = np.random.default_rng(k).normal(size=(7, 5))
            cut = slabs((7, 5), 8)
            assert len(cut) == 7
            for slab in reversed(cut):
                write_slab(path, "stats", "mean", k, slab, values[slab])
            store.publish("stats", [window(k)])
            np.testing.assert_array_equal(opened(path)["mean"][k], values)

    def test_a_row_that_nobody_wrote_reads_as_missing(self, store: ResultStore, path: Path) -> None:
        store.publish("stats", [Provenance(0, -1, -1, math.nan, 0, 10, False)])
        store.append([row(1)])
        dataset = opened(path)
        assert np.isnan(dataset["mean"][0]).all()
        assert (dataset["kinds"][0] == 0).all()
        assert dataset["complete"].values.tolist() == [False, True]
        np.testing.assert_array_equal(dataset["mean"][1], 1.0)


class TestContinuing:
    def test_an_opened_store_goes_on_where_it_stopped(self, store: ResultStore, path: Path) -> None:
        store.append([row(0)])
        again = ResultStore.open(path)
        assert again.rows("stats") == 1
        again.append([row(1)])
        assert opened(path)["mean"][:, 0, 0].values.tolist() == [0.0, 1.0]

    def test_what_a_crash_left_half_shown_is_overwritten(
        self, store: ResultStore, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.append([row(0)])
        resizes = []

        def crash_at_the_third(group: zarr.Group, key: str, rows: int) -> None:
            resizes.append(key)
            if len(resizes) == 3:
                raise KeyboardInterrupt
            resize(group, key, rows)

        with monkeypatch.context() as patch:
            resize = store_module._resize
            patch.setattr(store_module, "_resize", crash_at_the_third)
            with pytest.raises(KeyboardInterrupt):
                store.append([row(8)])
        assert opened(path).sizes["window"] == 1
        again = ResultStore.open(path)
        for options in ({}, {"consolidated": False}):
            assert opened(path, **options).sizes["window"] == 1
        again.append([row(1), row(2)])
        for options in ({}, {"consolidated": False}):
            dataset = opened(path, **options)
            assert dataset.sizes["window"] == 3
            assert each_row_holds_its_number(dataset)


class TestMistakes:
    def test_an_existing_store_is_not_overwritten(self, store: ResultStore, path: Path) -> None:
        with pytest.raises(RunError, match=r"results\.zarr exists already .* another run directory"):
            ResultStore.create(path, {})

    def test_what_is_no_store_cannot_be_opened(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="holds no results"):
            ResultStore.open(tmp_path)

    @pytest.mark.parametrize(
        ("code", "said"), [(28, "No space left on device. Free some space"), (13, "Permission denied. Ask for")]
    )
    def test_a_disk_that_refuses_is_named_with_the_cure(
        self, store: ResultStore, path: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(code, {28: "No space left on device", 13: "Permission denied"}[code])

        monkeypatch.setattr("zarr.storage._local._put", refuse)
        for write in (
            lambda: store.append([row(0)]),
            lambda: store.publish("stats", [window(0)]),
            lambda: write_slab(path, "stats", "kinds", 0, (slice(0, 3),), np.ones(3, "i8")),
        ):
            with pytest.raises(RunError, match=f"operator 'stats' to .*results.zarr: {said}"):
                write()

    def test_a_run_directory_that_is_a_file_is_a_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match=r"Cannot write results to .*: Not a directory"):
            ResultStore.create(tmp_path / "file" / "results.zarr", {})

    @pytest.mark.parametrize(
        ("key", "values", "said"),
        [
            ("mean", np.zeros((4, 5)), r"'mean' as float64 of shape \(4, 5\), but its .* float64 of shape \(4, 6\)"),
            ("mean", np.zeros((4, 6), "f4"), "'mean' as float32 of shape"),
            ("kinds", None, "did not yield 'kinds'"),
        ],
    )
    def test_arrays_that_were_not_promised_are_refused(
        self, store: ResultStore, path: Path, key: str, values: np.ndarray | None, said: str
    ) -> None:
        arrays = {name: array for name, array in {**row(0).arrays, key: values}.items() if array is not None}
        with pytest.raises(OperatorError, match=f"Operator 'stats' .*{said}"):
            store.append([Result("stats", window(0), arrays)])
        assert opened(path).sizes["window"] == 0

    @pytest.mark.parametrize(
        ("described", "said"),
        [
            ({"time": Variable("time", np.dtype("f8"), (), ())}, "'time', a name that the store keeps"),
            ({"a": Variable("a", np.dtype("f8"), None, ("n",))}, "'a' without a shape"),
            ({"a": Variable("a", np.dtype("f8"), (2,), ("window",))}, "dimension 'window', a name that is taken"),
            ({"bin": Variable("bin", np.dtype("f8"), (2,), ("bin",))}, "dimension 'bin', a name that is taken"),
            (
                {f"a{n}": Variable(f"a{n}", np.dtype("f8"), (n,), ("bin",)) for n in (2, 3)},
                "with 3 cells along 'bin', of which another result has 2",
            ),
        ],
    )
    def test_results_that_do_not_go_together_are_refused_before_anything_is_written(
        self, path: Path, described: dict[str, Variable], said: str
    ) -> None:
        class Odd(Means):
            def describe(self, inputs: object) -> dict[str, Variable]:
                return described

        store = ResultStore.create(path, {})
        with pytest.raises(OperatorError, match=said):
            store.declare("odd", Odd(of="u", over="step"), field(), {})
        assert "odd" not in zarr.open_group(path)
