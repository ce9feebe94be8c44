# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from demos import gray_scott
from demos.gray_scott import DT, DU, DV, KILL
from tests.demos.conftest import Start


def stored(folder: Path, ranks: int) -> np.ndarray:
    """The whole fields from the ranks' own files: (step, u or v, y, x)."""
    return np.concatenate([np.load(folder / f"fields.{rank}.npy") for rank in range(ranks)], axis=2)


def test_one_process_needs_neither_mpi_nor_a_run(start: Start, tmp_path: Path) -> None:
    done = start("gray_scott", "--size", 24, "--steps", 21, "--every", 10, "--store", tmp_path / "fields")
    assert done.returncode == 0, done.stderr
    assert stored(tmp_path, 1).shape == (3, 2, 24, 24)


def test_any_number_of_ranks_gives_the_same_fields_bit_for_bit(start: Start, tmp_path: Path) -> None:
    size, steps = 31, 41  # no number of ranks here divides the size
    options = ("--size", size, "--steps", steps, "--every", 8, "--store")
    assert start("gray_scott", *options, tmp_path / "fields").returncode == 0
    alone = stored(tmp_path, 1)
    for ranks in (2, 3, 4):
        done = start("gray_scott", *options, tmp_path / "fields", ranks=ranks)
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(stored(tmp_path, ranks), alone)


def test_advance_equals_the_textbook_solution_on_the_whole_square() -> None:
    u, v = gray_scott.initial_fields(20)
    own_u, own_v = gray_scott.with_halo(u), gray_scott.with_halo(v)
    feed = 0.04
    for _ in range(50):
        gray_scott.advance(own_u, own_v, feed)
        lap_u, lap_v = (sum(np.roll(f, s, a) for s in (1, -1) for a in (0, 1)) - 4 * f for f in (u, v))
        u, v = (
            u + DT * (DU * lap_u - u * v**2 + feed * (1 - u)),
            v + DT * (DV * lap_v + u * v**2 - (feed + KILL) * v),
        )
    np.testing.assert_allclose(own_u[1:-1, 1:-1], u, rtol=1e-12)
    np.testing.assert_allclose(own_v[1:-1, 1:-1], v, rtol=1e-12)


def test_the_feed_changes_the_fields() -> None:
    fields = [gray_scott.with_halo(field) for field in gray_scott.initial_fields(16)]
    starved = [field.copy() for field in fields]
    gray_scott.advance(fields[0], fields[1], feed=0.035)
    gray_scott.advance(starved[0], starved[1], feed=0.0)
    assert fields[0].mean() > 0.0
    assert not np.array_equal(fields[0], starved[0])


def test_processes_that_cannot_exchange_halos_are_refused(start: Start) -> None:
    done = start("gray_scott", "--size", 16, INSITU_RANK="1", INSITU_SIZE="3")
    assert done.returncode == 1
    assert "3 processes were started" in done.stderr
    assert "launcher: mpiexec" in done.stderr


def test_more_ranks_than_rows_are_refused(start: Start) -> None:
    done = start("gray_scott", "--size", 1, ranks=2)
    assert done.returncode != 0
    assert "take --size 2 or more" in done.stderr


@pytest.mark.parametrize("option", ["--size", "--steps", "--every"])
def test_a_number_below_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.setattr("sys.argv", ["gray_scott.py", option, "0"])
    with pytest.raises(SystemExit, match="2"):
        gray_scott.main()
    assert f"argument {option}: expected an integer of at least 1, got 0" in capsys.readouterr().err
