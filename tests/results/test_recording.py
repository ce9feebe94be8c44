# SPDX-License-Identifier: Apache-2.0
"""A recording gives back what was written, to the bit; what was cut short gives back the steps before."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from insitu.errors import ConfigError, RunError
from insitu.model import Array, Block, Step, Variable
from insitu.results import recording
from insitu.results.recorded import Recording
from insitu.results.recording import RecordingWriter, create_recording

U = Variable("u/v", np.dtype("f8"), (6, 4), ("y", "x"), "m", "a name with a slash")
P = Variable("p", np.dtype("f4"), None, ("particle", "axis"), row=(3,))
T = Variable("t", np.dtype("c16"), (), ())
ROOM = 1 << 20


def blocks(*several: tuple[Variable, tuple[int, ...], Array]) -> dict[int, dict[str, Block]]:
    return {0: {variable.name: Block(variable, start, data) for variable, start, data in several}}


def writers(path: Path, nodes: int, limit_bytes: int = ROOM) -> list[RecordingWriter]:
    create_recording(path, nodes)
    return [RecordingWriter(path, node, 1, limit_bytes) for node in range(nodes)]


def same(a: Array, b: Array) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, np.ascontiguousarray(b).tobytes())


@pytest.mark.parametrize("limit_bytes", [0, ROOM])
@pytest.mark.parametrize("series_bytes", [100, 1 << 20])
def test_blocks_come_back_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_bytes: int, series_bytes: int
) -> None:
    monkeypatch.setattr("insitu.results.chunks.SERIES_BYTES", series_bytes)
    rng = np.random.default_rng(3)
    (writer,) = writers(tmp_path / "r", 1, limit_bytes)
    published = []
    for n in range(23):
        rows = 2 + n % 3
        u = np.where(rng.random((rows, 4)) < 0.3, -0.0, rng.normal(size=(rows, 4))) * (n != 5)
        p = rng.normal(size=(n * 7 % 19, 3)).astype("f4")
        published.append((u, (n % 2, 0), p, np.array(n * 1j)))
        parts = [(U, (n % 2, 0), u), (P, (0, 0), p), *([(T, (), np.array(n * 1j))] if n % 4 else [])]
        writer.write(Step(n, 2 * n, 0.5 * n), blocks(*parts), 0.1 * n)
        if n % 6 == 5:
            writer.commit()
    writer.commit()
    back = Recording(tmp_path / "r")
    assert back.variables == {"u/v": U, "p": P, "t": T}
    assert [(known.step, known.elapsed_s) for known in back.steps] == [
        (Step(n, 2 * n, n / 2), 0.1 * n) for n in range(23)
    ]
    stored = back.blocks_of(0)
    for n, (u, start, p, t) in enumerate(published):
        found = {block.variable.name: block for block in stored.at(n)}
        assert same(found["u/v"].data, u)
        assert found["u/v"].start == start
        assert same(found["p"].data, p)
        assert ("t" in found) == bool(n % 4)
        assert "t" not in found or same(found["t"].data, t)
    assert list(back.blocks_of(1).at(0)) == []


def test_small_blocks_share_files(tmp_path: Path) -> None:
    (writer,) = writers(tmp_path / "r", 1)
    for n in range(1000):
        writer.write(Step(n, n, 0.0), blocks((U, (0, 0), np.full((6, 4), n, "f8"))), 0.0)
    writer.commit()
    files, nbytes = recording.files_of(tmp_path / "r")
    assert files < 20
    assert nbytes < 1.5 * 1000 * 6 * 4 * 8


def test_parts_of_several_nodes_are_put_together(tmp_path: Path) -> None:
    whole = np.arange(24.0).reshape(6, 4)
    low, high = writers(tmp_path / "r", 2)
    low.write(Step(0, 0, 0.0), blocks((U, (0, 0), whole[:4]), (P, (0, 0), np.ones((2, 3), "f4"))), 0.0)
    high.write(Step(0, 0, 0.0), blocks((U, (4, 0), whole[4:]), (P, (0, 0), np.zeros((1, 3), "f4"))), 0.0)
    low.commit()
    high.commit()
    found = {block.variable.name: block for block in Recording(tmp_path / "r").blocks_of(0).at(0)}
    np.testing.assert_array_equal(found["u/v"].data, whole)
    assert found["u/v"].start == (0, 0)
    assert found["p"].data[:, 0].tolist() == [1, 1, 0]


def test_steps_that_not_all_nodes_wrote_are_left_out(tmp_path: Path) -> None:
    low, high = writers(tmp_path / "r", 2)
    for n in range(5):
        low.write(Step(n, n, 0.0), blocks((U, (0, 0), np.zeros((3, 4)))), 0.0)
        if n < 3:
            high.write(Step(n, n, 0.0), blocks((U, (3, 0), np.zeros((3, 4)))), 0.0)
            high.commit()
    low.commit()
    back = Recording(tmp_path / "r")
    assert (len(back.steps), back.left_out) == (3, 2)


def test_a_dropped_step_keeps_its_place(tmp_path: Path) -> None:
    (writer,) = writers(tmp_path / "r", 1)
    for step in (Step(0, 10, 1.0), Step(1, -1, 0.0), Step(2, -1, 0.0), Step(3, 40, 4.0)):
        writer.write(step, {}, 0.0)
    writer.commit()
    assert [known.step.index for known in Recording(tmp_path / "r").steps] == [10, 11, 12, 40]


def test_what_a_full_disk_cut_short_is_the_steps_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (writer,) = writers(tmp_path / "r", 1)
    data = np.random.default_rng(1).normal(size=(12, 6, 4))
    for n in range(6):
        writer.write(Step(n, n, 0.0), blocks((U, (0, 0), data[n])), 0.0)
    writer.commit()
    put, left = zarr.storage.LocalStore.set, iter(range(3))

    async def full(store: zarr.storage.LocalStore, key: str, value: object) -> None:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        await put(store, key, value)  # type: ignore[arg-type]

    for n in range(6, 12):
        writer.write(Step(n, n, 0.0), blocks((U, (0, 0), data[n])), 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(zarr.storage.LocalStore, "set", full)
        with pytest.raises(RunError, match=r"No space left on device\. Free some space there"):
            writer.commit()
    back = Recording(tmp_path / "r")
    assert len(back.steps) == 6
    stored = back.blocks_of(0)
    for n in range(6):
        (block,) = stored.at(n)
        assert same(block.data, data[n])


def test_no_recording_is_said_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no recording; record one: run the simulation with .*to: record"):
        Recording(tmp_path / "none")
    zarr.create_group(tmp_path / "other")
    with pytest.raises(ConfigError, match="this is no recording"):
        Recording(tmp_path / "other")
    writers(tmp_path / "empty", 2)
    with pytest.raises(ConfigError, match="no step is whole on all 2 staging nodes"):
        Recording(tmp_path / "empty")
    create_recording(tmp_path / "absent", 1)
    with pytest.raises(ConfigError, match="staging node 0 has recorded nothing"):
        Recording(tmp_path / "absent")
