# SPDX-License-Identifier: Apache-2.0
"""Whatever is legal to publish arrives as it is: parts of every shape, order and dtype, particles, single numbers.

It is recorded as it came, too, and may be replayed by another configuration.
"""

import numpy as np
import pytest

from insitu.results.recorded import Recording
from tests.cli.calls import insitu
from tests.end_to_end.conftest import Start
from tests.end_to_end.programs.shapes import ARRAYS, PAUSE_S, PAUSED, RANKS, STEPS, field, particles, parts, scalar
from tests.end_to_end.runs import Left, program, total, write
from tests.end_to_end.test_replay import replay

OUTPUTS = [{"to": "zarr"}, {"to": "record"}]
REAL = [name for name in ARRAYS if name != "spectrum"]


@pytest.fixture(scope="module")
def left(start_shared: Start) -> Left:
    """Through shared memory; over sockets go the selections of `test_contract.py`."""
    operators = {f"{name}_cells": total(name, window=4) for name in REAL}
    operators |= {f"{name}_each": total(name, over="space") for name in (*REAL, "particles", "agreed", "lonely")}
    staging = {"transport": "shm"}
    running = start_shared(
        *program("shapes"), ranks=RANKS, nodes=2, operators=operators, staging=staging, outputs=OUTPUTS
    )
    left = running.wait()
    assert left.status == 0, left.stderr
    return left


@pytest.mark.parametrize("name", REAL)
def test_arrays_are_whole_whatever_their_parts(left: Left, name: str) -> None:
    steps = np.stack([field(name, n) for n in range(STEPS)]).astype(float)
    expected = [steps[first : first + 4].sum(axis=0) for first in range(0, STEPS, 4)]
    np.testing.assert_array_equal(left.results(f"{name}_cells")["total"], expected)
    np.testing.assert_array_equal(left.results(f"{name}_each")["total"], steps.sum(axis=(1, 2)))


def test_particles_may_come_and_go(left: Left) -> None:
    steps = [np.concatenate([particles(rank, n) for rank in range(RANKS)]) for n in range(STEPS)]
    assert 0 in {len(particles(rank, n)) for rank in range(RANKS) for n in range(STEPS)}
    each = left.results("particles_each")
    np.testing.assert_array_equal(each["number"], [step.size for step in steps])
    np.testing.assert_array_equal(each["total"], [step.sum() for step in steps])
    assert each["total"].units == "m/s"


@pytest.mark.parametrize("name", ["agreed", "lonely"])
def test_a_single_number_counts_once_whoever_puts_it(left: Left, name: str) -> None:
    each = left.results(f"{name}_each")
    np.testing.assert_array_equal(each["total"], [scalar(n) for n in range(STEPS)])
    np.testing.assert_array_equal(each["number"], 1)


def test_steps_keep_their_index_and_time(left: Left) -> None:
    each = left.results("agreed_each")
    assert each["step"].values.tolist() == list(range(0, 10 * STEPS, 10))
    np.testing.assert_allclose(each["time"], 0.1 * np.arange(STEPS))


def test_whatever_was_published_is_recorded_as_it_came(left: Left) -> None:
    recording = Recording(left.directory / "recording.zarr")
    assert (recording.ranks, recording.left_out, len(recording.steps)) == (RANKS, 0, STEPS)
    for rank in range(RANKS):
        blocks = recording.blocks_of(rank)
        for n, known in enumerate(recording.steps):
            assert (known.step.index, known.step.time) == (10 * n, pytest.approx(0.1 * n))
            stored = {block.variable.name: block for block in blocks.at(n)}
            for name, data, where in parts(rank, n):
                inside = data[1:-1, 1:-2] if name == "halo" else data
                np.testing.assert_array_equal(stored[name].data, inside)
                assert stored[name].variable.dtype == inside.dtype.newbyteorder("=")
                assert stored[name].start == where.get("start", (0, 0))
            np.testing.assert_array_equal(stored["particles"].data, particles(rank, n))
            assert ("lonely" in stored) == (rank == 0)


def test_the_report_says_how_much_was_recorded(left: Left) -> None:
    said = left.report["recording"]
    assert said["steps"] == STEPS
    assert said["blocks_bytes"] == left.report["steps"]["delivered_bytes"]
    assert said["files"] == sum(file.is_file() for file in (left.directory / "recording.zarr").rglob("*"))
    assert said["ended_early"] == []


def of_it(run: str, **keys: object) -> dict[str, object]:
    """A configuration that folds another variable."""
    return {"run": run, "simulation": {"command": "none"}, "operators": {"sum": total(**keys)}}


def test_another_configuration_may_fold_something_else_of_it(left: Left) -> None:
    """And record it again: steps come as far apart as they came."""
    path = write(left.directory.parents[1], of_it("other", of="uneven", window=5) | {"outputs": OUTPUTS})
    again = replay(left, path, "--pace", "recorded", name="other")
    assert again.status == 0, again.stderr
    came, comes = (
        [step.elapsed_s for step in Recording(each.directory / "recording.zarr").steps] for each in (left, again)
    )
    for elapsed_s in (came, comes):
        assert elapsed_s[PAUSED] - elapsed_s[PAUSED - 1] > PAUSE_S / 4  # on a busy machine the one before may be late
    steps = np.stack([field("uneven", n) for n in range(STEPS)])
    expected = [steps[first : first + 5].sum(axis=0) for first in range(0, STEPS, 5)]
    np.testing.assert_array_equal(again.results("sum")["total"], expected)


def test_what_was_not_recorded_cannot_be_folded(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = left.directory.parents[1]
    monkeypatch.chdir(folder)
    path = write(folder, of_it("wrong", of="unevem"))
    result = insitu("replay", left.directory, path)
    assert result.exit_code == 2
    assert f'{path}:7: operators.sum.of: the recording holds no variable "unevem"; did you mean' in result.stderr
    assert not left.directory.with_name("wrong").exists()


def test_the_recorded_run_is_never_replaced(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(left.directory.parents[1])
    result = insitu("replay", left.directory, left.directory / "config.yaml", "--force")
    assert (result.exit_code, (left.directory / "report.json").exists()) == (2, True)
    assert "give the new one another name: --set run=NAME" in result.stderr
