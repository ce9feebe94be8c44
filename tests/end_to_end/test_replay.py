# SPDX-License-Identifier: Apache-2.0
"""What a run has recorded is replayed through staging nodes of its own, and comes to the same, bit for bit."""

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from insitu.console import steer
from insitu.controller.record import read_record
from insitu.results.recorded import Recording
from tests.end_to_end.conftest import Start
from tests.end_to_end.programs.noise import STEPS
from tests.end_to_end.runs import INSITU, LIMIT_S, SLACK_S, Left, environment, program, told, total
from tests.waiting import wait_until

WINDOW = 8
FOLDS: dict[str, Any] = {
    "cells": {"use": "moments", "of": "u", "over": "step", "window": WINDOW},
    "all": {"use": "moments", "of": "u", "over": ["step", "space"], "window": WINDOW},
    "spread": {"use": "histogram", "of": "u", "bins": 7, "range": "auto", "over": ["step", "space"], "window": WINDOW},
    "section": {"use": "profile", "of": "u", "along": "y", "over": ["step", "space"], "window": WINDOW},
    "particles": {"use": "moments", "of": "p", "over": ["step", "space"], "window": WINDOW},
    "number": {"use": "moments", "of": "t", "over": "space"},
}
RECORD = {"to": "record"}


def replay(left: Left, *arguments: object, name: str = "") -> Left:
    """Run ``insitu replay`` where the recorded run was."""
    folder = left.directory.parents[1]
    command = [*INSITU, "replay", str(left.directory), *map(str, arguments)]
    outside = environment() | {"TMPDIR": str(folder / "tmp")}
    done = subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True, timeout=LIMIT_S)
    return Left(
        left.directory.with_name(name or f"{left.directory.name}-replay"), done.returncode, done.stdout, done.stderr
    )


def same_results(a: Path, b: Path) -> list[str]:
    """Return what was compared, once every array is found to be the same."""
    with (
        xr.open_datatree(a / "results.zarr", engine="zarr", chunks=None) as one,
        xr.open_datatree(b / "results.zarr", engine="zarr", chunks=None) as other,
    ):
        names = sorted(one.children)
        assert sorted(other.children) == names
        for name in names:
            xr.testing.assert_identical(one[name].dataset.drop_attrs(), other[name].dataset.drop_attrs())
            for key, array in one[name].dataset.variables.items():
                assert array.values.tobytes() == other[name].dataset[key].values.tobytes(), f"{name}/{key}"
    return names


def test_the_results_are_the_same_bit_for_bit(start: Start) -> None:
    """`test_shapes.py` folds something else of a recording."""
    variables = {"u": {"select": {"x": "1::2"}}, "p": {"dtype": "float32"}}
    recorded = start(*program("noise"), ranks=2, nodes=2, operators=FOLDS, outputs=[RECORD], variables=variables).wait()
    assert recorded.status == 0, recorded.stderr
    again = replay(recorded)
    assert again.status == 0, again.stderr
    assert same_results(recorded.directory, again.directory) == sorted(FOLDS)
    assert len(again.results("cells").window) == -(-STEPS // WINDOW)
    assert again.report["replay"] == {
        "of": str(recorded.directory / "recording.zarr"), "pace": "full", "steps": STEPS, "left_out": 0,
    }  # fmt: skip
    assert not (again.directory / "recording.zarr").exists()


def test_a_recording_ends_with_the_staging_node_that_was_killed(start: Start) -> None:
    """The run goes on, but a part of each later step was to be written there; the report says so. Ranks do not wait for
    who maps their memory any longer than for others.
    """
    operators, max_wait_s = {"few": total(window=WINDOW)}, 0.5
    tight = {"*": {"buffer": "4 KiB", "max_wait": max_wait_s}}
    steady = program("steady", "--steps", 10**6, "--pause", 0.01)
    keys = {"operators": operators, "outputs": [RECORD], "variables": tight, "staging": {"transport": "shm"}}
    running = start(*steady, ranks=2, nodes=2, impatient=True, **keys)
    nodes = [running.directory / "recording.zarr" / f"node-{node}" / "zarr.json" for node in range(2)]
    wait_until(lambda: all(node.exists() and '"steps": 0' not in node.read_text() for node in nodes), LIMIT_S, "steps")
    running.descendants("spawn_main")[1].kill()
    wait_until(lambda: running.events("replanned"), LIMIT_S, "the other node to take its part")
    with steer(running.directory) as run:
        run.stop()
    recorded = running.wait()
    assert recorded.status == 1
    ranks = told(running.folder, 2)
    assert max(rank["longest_s"] for rank in ranks) < max_wait_s + SLACK_S
    assert max(rank["close_s"] for rank in ranks) < max_wait_s + SLACK_S
    steps = recorded.report["steps"]
    assert [rank["steps"] for rank in ranks] == [steps["produced"]] * 2
    assert sum(steps["dropped_because"].values()) == steps["dropped"] > 0
    [said] = recorded.report["recording"]["ended_early"]
    assert re.search(r"staging node [01] is gone, which had a part of each$", said)  # whoever had which number
    assert any(said in reason for reason in recorded.report["reasons"])
    whole = Recording(recorded.directory / "recording.zarr")
    assert 0 < len(whole.steps) <= recorded.report["steps"]["produced"] - whole.left_out
    for rank in range(2):
        for each in whole.steps:
            [block] = whole.blocks_of(rank).at(each.step.sequence)
            np.testing.assert_array_equal(block.data, np.arange(8 * rank, 8 * rank + 8) + each.step.index)


def test_the_parameters_of_a_recorded_run_are_set_as_they_were(start: Start) -> None:
    """So that a rule that is tried on a recording sees what it would have seen."""
    operators = {"sum": total(), "levels": total("parameters.level", ["step", "space"])}
    running = start(*program("tuned"), operators=operators, outputs=[RECORD, {"to": "zarr"}])
    with steer(running.until("begun").parent / "runs" / "test0") as run:
        run.wait(lambda: run.ready, LIMIT_S, "the first step")
        assert run.act("trate", {"every": 2}).receipt(LIMIT_S).outcome == "applied"
        tuned = run.steer(level=0.25, u=np.ones(4)).receipt(LIMIT_S)
        assert run.stop().receipt(LIMIT_S).outcome == "applied"
    left = running.wait()
    assert left.report["parameters"]["level"]["value"] == 0.25
    assert left.report["actions"] == {"applied": 3}
    again = replay(left, "--actions")
    assert again.status == 0, again.stderr
    assert same_results(left.directory, again.directory) == ["levels", "sum"]
    assert again.report["parameters"]["level"]["value"] == 0.25
    applied = {each.action.kind: each for each in read_record(again.directory / "actions.jsonl")}
    assert applied["set"].new == {"level": 0.25}, "a replay has no fields"
    assert applied["set"].step is not None
    assert tuned.step is not None
    assert applied["set"].step <= tuned.step < applied["set"].step + 2


def test_a_disk_that_is_slow_holds_the_ranks_back_and_one_that_is_full_ends_the_recording_only(start: Start) -> None:
    """It takes its time for each step, and takes no more after some of them."""
    steps, pause_s = 40, 0.05
    disk = {"use": "tests.end_to_end.folds:PoorDisk", "of": "u", "over": "space", "pause_s": pause_s, "room": 30}
    left = start(
        *program("heavy", "--steps", steps, "--kib", 1024),
        operators={"disk": disk},
        staging={"memory": "8 MiB", "transport": "tcp"},
        variables={"*": {"buffer": "4 MiB"}},
        outputs=[RECORD],
    ).wait()
    assert left.status == 1, left.stderr
    (event,) = left.events("recording-stopped")
    assert "Free some space there" in event["text"]
    assert left.report["reasons"] == [f"staging node 0: {event['text']}"]
    (node,) = left.report["staging"]
    assert node["peak_bytes"] <= 4 * 2**20
    assert left.report["ranks"]["waited_for_staging_s"] > 30 * pause_s / 2
    assert left.report["recording"]["steps"] <= 30
    assert left.report["steps"]["delivered"] == steps
    np.testing.assert_array_equal(left.results("disk")["total"], 2**17 * np.arange(steps))
