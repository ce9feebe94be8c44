# SPDX-License-Identifier: Apache-2.0
"""With real workers in processes of their own."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from distributed import LocalCluster

from insitu.errors import OperatorError, RunError
from insitu.operator import Operator
from insitu.results import Provenance
from insitu.results.store import ResultStore
from insitu.staging import executors
from insitu.staging.executors import Cluster, start_cluster
from insitu.staging.merging import Recipe
from insitu.wire.contact import Contact
from tests.results.means import Anomalies, Means, field
from tests.staging.holding import (
    SHAPE,
    WINDOWS,
    Gated,
    HoldingNode,
    Known,
    Raising,
    Stuck,
    held_by,
    parts_of,
    refuse,
    seen_by,
    steps_of,
)
from tests.waiting import wait_until

# Dask's processes and loops come and go with the cluster that a module's tests share.
pytestmark = pytest.mark.leaks_per_module

OPERATORS: dict[str, Operator] = {
    "cells": Means(of="u", over="step", window=4),
    "both": Means(of="u", over=("step", "space"), window=4),
    "joint": Anomalies(of="u", over="step", window=4),
    "raising": Raising(of="u", over="step", window=4),
}
RECIPES = {name: Recipe.of(name, operator, field(SHAPE)) for name, operator in OPERATORS.items()}


def contact(directory: Path) -> Contact:
    return Contact("test", "tcp://127.0.0.1:1", os.getpid(), "localhost", str(directory))


def held(name: str, window: int) -> list[Known]:
    return [held_by(number, name, RECIPES[name], window) for number in range(2)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with start_cluster("local", 2) as cluster:
        yield cluster


@pytest.fixture
def staged(cluster: Cluster, tmp_path: Path) -> Cluster:
    """The cluster, with fresh nodes that have held all they have."""
    cluster.install(contact(tmp_path), OPERATORS, 10**6, HoldingNode)
    for number in range(2):
        seen_by(tmp_path, number)
    return cluster


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    store = ResultStore.create(tmp_path / "results.zarr", {})
    for name, operator in OPERATORS.items():
        store.declare(name, operator, field(SHAPE), {})
    return store


def shown(store: ResultStore, directory: Path, name: str, rows: int) -> xr.Dataset:
    store.publish(name, [Provenance(row, 0, 3, 0.0, 4, 0, True) for row in range(rows)])
    return xr.open_zarr(directory / "results.zarr", group=name, chunks=None).load()


class TestWindows:
    def test_of_held_states_equal_numpy(self, staged: Cluster, store: ResultStore, tmp_path: Path) -> None:
        for name in ("cells", "both"):
            for window in range(WINDOWS):
                staged.write(RECIPES[name], tmp_path / "results.zarr", window, window, held(name, window))
        cells, both = (shown(store, tmp_path, name, WINDOWS) for name in ("cells", "both"))
        for window in range(WINDOWS):
            steps = steps_of(window)
            np.testing.assert_allclose(cells["mean"][window], steps.mean(axis=0), rtol=1e-13)
            np.testing.assert_allclose(cells["twice"][window, 1], 2 * steps.mean(axis=0), rtol=1e-6)
            np.testing.assert_array_equal(cells["kinds"][window], [0, 1, 2])
            np.testing.assert_allclose(both["mean"][window], steps.mean(), rtol=1e-12)

    @pytest.mark.parametrize("here", [0, 1])
    def test_of_places_that_need_each_other(
        self, staged: Cluster, store: ResultStore, tmp_path: Path, here: int
    ) -> None:
        """The middle rank's cells lie on both nodes; with `here`, the second node's states came to the controller."""
        small = parts_of(OPERATORS["joint"], 0, 1) if here else ()
        staged.write(RECIPES["joint"], tmp_path / "results.zarr", 0, 0, held("joint", 0)[: 2 - here], small)
        row, steps = shown(store, tmp_path, "joint", 1), steps_of(0)
        np.testing.assert_allclose(row["anomaly"][0], steps.mean(axis=0) - steps.mean(), rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(row["level"][0], steps.mean(), rtol=1e-12)

    def test_take_as_many_tasks_as_nodes_and_summaries_ask_for(
        self, staged: Cluster, store: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made: dict[str, list[str]] = {"cells": [], "joint": []}
        submit = Cluster._task
        for name, functions in made.items():

            def counted(self: Cluster, function: Any, *arguments: Any, to: list[str] = functions) -> Any:
                to.append(function.__name__)
                return submit(self, function, *arguments)

            monkeypatch.setattr(Cluster, "_task", counted)
            staged.write(RECIPES[name], tmp_path / "results.zarr", 1, 0, held(name, 1))
        assert made["cells"].count("finalize") == made["joint"].count("finalize") == 2
        assert sorted(set(made["joint"]) - set(made["cells"])) == ["combine", "summarize"]
        assert len(made["joint"]) == len(made["cells"]) + 3

    def test_above_the_size_of_a_slab_are_written_in_many(
        self, staged: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for cutter in ("chunks.slab_shape", "chunks.slabs"):
            monkeypatch.setattr(f"insitu.results.{cutter}.__defaults__", (500,))
        monkeypatch.setattr(Recipe.bundles, "__defaults__", (500,))
        path = tmp_path / "results.zarr"
        store = ResultStore.create(path, {})
        store.declare("cells", OPERATORS["cells"], field(SHAPE), {})
        assert len(RECIPES["cells"].bundles()) > 5
        staged.write(RECIPES["cells"], path, 1, 0, held("cells", 1))
        row = shown(store, tmp_path, "cells", 1)
        np.testing.assert_allclose(row["mean"][0], steps_of(1).mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(row["twice"][0, 0], steps_of(1).mean(axis=0), rtol=1e-6)

    @pytest.mark.parametrize("name", ["cells", "both"])
    def test_take_small_parts_from_the_controller_too(
        self, staged: Cluster, store: ResultStore, tmp_path: Path, name: str
    ) -> None:
        small = parts_of(OPERATORS[name], 2, 1)
        staged.write(RECIPES[name], tmp_path / "results.zarr", 2, 0, held(name, 2)[:1], small)
        steps = steps_of(2)
        expected = steps.mean(axis=0) if name == "cells" else steps.mean()
        np.testing.assert_allclose(shown(store, tmp_path, name, 1)["mean"][0], expected, rtol=1e-12)

    def test_with_a_node_lost_are_written_without_its_cells(
        self, staged: Cluster, store: ResultStore, tmp_path: Path
    ) -> None:
        staged.write(RECIPES["cells"], tmp_path / "results.zarr", 0, 0, held("cells", 0)[:1])
        row = shown(store, tmp_path, "cells", 1)["mean"][0]
        np.testing.assert_allclose(row[:12], steps_of(0).mean(axis=0)[:12], rtol=1e-13)
        assert np.isnan(row[12:]).all()


class TestHeldStates:
    def test_are_kept_until_they_are_merged_or_released(
        self, staged: Cluster, store: ResultStore, tmp_path: Path
    ) -> None:
        all_of_it = len(OPERATORS) * WINDOWS * 1000
        assert [seen_by(tmp_path, number)["held_bytes"] for number in range(2)] == [all_of_it] * 2
        staged.write(RECIPES["cells"], tmp_path / "results.zarr", 0, 0, held("cells", 0))
        staged.release([known.key for name in ("both", "raising") for known in held(name, 1)])
        for number in range(2):
            wait_until(lambda number=number: seen_by(tmp_path, number)["held_bytes"] == all_of_it - 3000)

    def test_are_let_go_of_when_they_cannot_be_merged(
        self, staged: Cluster, store: ResultStore, tmp_path: Path
    ) -> None:
        before = seen_by(tmp_path, 0)["held_bytes"]
        with pytest.raises(
            OperatorError, match=r"Operator 'raising', window 2: ZeroDivisionError: nothing to divide by"
        ):
            staged.write(RECIPES["raising"], tmp_path / "results.zarr", 2, 0, held("raising", 2))
        moved = [*held("cells", 1), Known("0-both-1", (((10, 0), (4, 10)),))]
        with pytest.raises(OperatorError, match=r"'cells', window 1: blocks moved .* start \(10, 0\) count \(4, 10\)"):
            staged.write(RECIPES["cells"], tmp_path / "results.zarr", 1, 0, moved)
        wait_until(lambda: seen_by(tmp_path, 0)["held_bytes"] == before - 3000)

    def test_that_nobody_ever_held_are_an_error(self, staged: Cluster, store: ResultStore, tmp_path: Path) -> None:
        unknown = [Known("nobody", (((), ()),))]
        with pytest.raises(RunError, match="Operator 'both', window 7: the states are lost"):
            staged.write(RECIPES["both"], tmp_path / "results.zarr", 7, 0, unknown)

    def test_of_a_store_that_is_gone_are_an_error_of_the_run(self, staged: Cluster, tmp_path: Path) -> None:
        with pytest.raises(RunError, match=r"'both', window 0: Cannot write the results of operator 'both' to"):
            staged.write(RECIPES["both"], tmp_path / "no" / "results.zarr", 0, 0, held("both", 0))


class TestNodes:
    def test_get_what_they_need_and_one_thread_for_libraries(self, staged: Cluster, tmp_path: Path) -> None:
        seen = [seen_by(tmp_path, number) for number in range(2)]
        assert [each["memory_bytes"] for each in seen] == [10**6] * 2
        assert len({os.getpid(), *(each["pid"] for each in seen)}) == 3
        if "OMP_NUM_THREADS" not in os.environ:
            assert [each["threads"] for each in seen] == ["1", "1"]

    def test_do_not_hear_ctrl_c(self, staged: Cluster, tmp_path: Path) -> None:
        for number in range(2):
            os.kill(seen_by(tmp_path, number)["pid"], signal.SIGINT)
        staged.install(contact(tmp_path), {}, 1, HoldingNode)
        assert (tmp_path / "closed-0").exists()

    def test_that_never_start_are_given_up_and_named(
        self, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(executors, "WARM_S", 0.5)
        begin = time.monotonic()
        with pytest.raises(RunError, match=r"did not start their staging nodes within 0.5 s.*See whether"):
            cluster.install(contact(tmp_path), OPERATORS, 10**6, Stuck)
        assert 0.5 <= time.monotonic() - begin < 60.0
        (tmp_path / "go").touch()  # so that nothing of them is left to the next test
        wait_until(lambda: all((tmp_path / f"up-{n}").exists() for n in range(2)), what="the nodes to come up")

    def test_that_cannot_start_say_why(self, cluster: Cluster, tmp_path: Path) -> None:
        with pytest.raises(OSError, match=r"no room for node [01] of test"):
            cluster.install(contact(tmp_path), OPERATORS, 1, refuse)


class TestAWorkerThatDies:
    """SIGKILL gives an error that names operator and window, and nobody waits for the dead."""

    @pytest.fixture
    def pids(self, tmp_path: Path) -> Iterator[list[int]]:
        """Workers' processes of a cluster of its own."""
        self.operators = {**OPERATORS, "gated": Gated(of="u", over="step", window=4, gate=str(tmp_path / "gate"))}
        with start_cluster("local", 2) as self.cluster:
            self.cluster.install(contact(tmp_path), self.operators, 1, HoldingNode)
            yield [seen_by(tmp_path, number)["pid"] for number in range(2)]

    def test_in_the_middle_of_a_merge_or_before_a_state_is_asked_for(
        self, pids: list[int], store: ResultStore, tmp_path: Path
    ) -> None:
        path = tmp_path / "results.zarr"
        store.declare("gated", self.operators["gated"], field(SHAPE), {})
        recipe = Recipe.of("gated", self.operators["gated"], field(SHAPE))
        known = [held_by(number, "gated", recipe, 0) for number in range(2)]
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(self.cluster.write, recipe, path, 0, 0, known)
            begun = [tmp_path / f"gate-{pid}" for pid in pids]
            wait_until(lambda: all(gate.exists() for gate in begun), 30.0)
            os.kill(pids[0], signal.SIGKILL)
            with pytest.raises(RunError, match="Operator 'gated', window 0: the states are lost with the Dask worker"):
                writing.result(30.0)
            (tmp_path / "gate").touch()
        with pytest.raises(RunError, match="Operator 'cells', window 1: the states are lost with the Dask worker"):
            self.cluster.write(RECIPES["cells"], path, 1, 0, held("cells", 1))
        survivor = [held_by(1, "cells", RECIPES["cells"], 0)]
        self.cluster.write(RECIPES["cells"], path, 0, 0, survivor)


@pytest.fixture(scope="module")
def theirs() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
    ) as theirs:
        yield theirs


class TestSomebodyElsesCluster:
    @pytest.mark.parametrize("by_file", [False, True])
    def test_is_used_and_left_running(
        self, theirs: LocalCluster, store: ResultStore, tmp_path: Path, by_file: bool
    ) -> None:
        where = theirs.scheduler_address
        if by_file:
            where = str(tmp_path / "scheduler.json")
            Path(where).write_text(f'{{"address": "{theirs.scheduler_address}"}}')
        for _ in range(2):
            with start_cluster(where, 2) as cluster:
                cluster.install(contact(tmp_path), OPERATORS, 10**6, HoldingNode)
                for number in range(2):
                    seen_by(tmp_path, number)
                cluster.write(RECIPES["cells"], tmp_path / "results.zarr", 1, 0, held("cells", 1))
            for number in range(2):
                (tmp_path / f"closed-{number}").unlink()
                (tmp_path / f"node-{number}.json").unlink()
        np.testing.assert_allclose(shown(store, tmp_path, "cells", 1)["mean"][0], steps_of(1).mean(axis=0), rtol=1e-13)

    def test_with_too_few_workers_is_refused(self, theirs: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(executors, "CONNECT_S", 0.5)
        with pytest.raises(
            RunError, match=r"has 2 workers, and staging.nodes asks for 3. Start more with 'dask worker'"
        ):
            start_cluster(theirs.scheduler_address, 3)


class TestMistakes:
    def test_no_scheduler_at_the_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(executors, "CONNECT_S", 0.5)
        with pytest.raises(RunError, match=r"No Dask scheduler answers at tcp://127.0.0.1:1: .* take staging"):
            start_cluster("tcp://127.0.0.1:1", 1)

    @pytest.mark.parametrize("text", [None, "", "[]", "{}"])
    def test_no_scheduler_file(self, tmp_path: Path, text: str | None) -> None:
        file = tmp_path / "scheduler.json"
        if text is not None:
            file.write_text(text)
        with pytest.raises(
            RunError, match=r"No scheduler's address can be read from .*scheduler.json: .*--scheduler-file"
        ):
            start_cluster(str(file), 1)

    def test_closing_twice_is_fine(self) -> None:
        cluster = start_cluster("local", 1)
        cluster.close()
        cluster.close()
