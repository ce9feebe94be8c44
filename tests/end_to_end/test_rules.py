# SPDX-License-Identifier: Apache-2.0
"""Rules and controllers in whole runs: a tank that is steered by what its results say."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.end_to_end.runs import Left, Running, program

HERE = "tests.end_to_end.controllers"
OPERATORS = {
    "level": {"use": "moments", "of": "u", "over": "space"},
    "field": {"use": "moments", "of": "u", "over": "step", "window": 20},
}


def tank(folder: Path, steering: Any, *options: object, ranks: int = 2, **keys: Any) -> Left:
    simulation = {"command": program("tank", *options), "ranks": ranks}
    running = Running(folder, {"run": "tank", "simulation": simulation, "steering": steering} | keys)
    try:
        return running.wait()
    finally:
        running.kill()


def receipts(left: Left) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (left.directory / "actions.jsonl").read_text().splitlines()]
    return [line for line in lines if "outcome" in line]


def test_rules_act_on_the_simulation_and_every_wish_has_its_receipt(tmp_path: Path) -> None:
    """One run with a rule of each kind: by rows, by windows of cells, that fight, that ask for too much, that stop.

    The states of `field` are beyond 64 KiB, so they are not gathered, and its results are not stored; numbers of them
    come all the same.
    """
    left = tank(
        tmp_path,
        [
            {"name": "full", "when": "level.mean > 0.5", "set": {"inflow": "0.5 * parameters.inflow"}, "once": True},
            {"name": "cells", "when": "field.max.mean > 0.2", "set": {"mode": "'busy'"}, "for": "20 steps"},
            {"name": "far", "when": "field.max > 0.2 and field.mean[7999] < 1", "notify": "it has come to the end"},
            {"name": "up", "when": "level.mean > 0.3", "set": {"inflow": 2}},
            {"name": "down", "when": "level.mean > 0.3", "set": {"inflow": 0}},
            {"name": "flood", "when": "level.max > 0.4", "set": {"inflow": 11}, "notify": "open the gates"},
            {"name": "end", "when": "level.mean.ewm(5) > 0 and step >= 150", "do": "stop"},
        ],
        *("--steps", 2000, "--cells", 4000),
        operators=OPERATORS | {"set": {"use": "moments", "of": "parameters.inflow", "over": "space", "orders": 1}},
        outputs=[{"of": ["level", "set"]}],
    )
    assert left.status == 0, left.stderr
    by = {each["by"]: each for each in receipts(left)}
    assert by["rule:full"]["outcome"] == "applied"
    assert (by["rule:full"]["old"], by["rule:full"]["new"]) == ({"inflow": 1.0}, {"inflow": 0.5})
    assert "level.mean > 0.5 at step " in by["rule:full"]["why"]
    assert by["rule:cells"]["new"] == {"mode": "busy"}
    assert [by[name]["outcome"] for name in ("rule:up", "rule:down", "rule:flood")] == ["refused"] * 3
    assert "fights over 'inflow' with rule:down, which wants 0" in by["rule:up"]["reason"]
    assert "fights over 'inflow' with rule:up, which wants 2" in by["rule:down"]["reason"]
    assert "above the maximum 10" in by["rule:flood"]["reason"]
    assert by["rule:end"]["outcome"] == "applied"
    assert 150 <= by["rule:end"]["step"] < 600
    level = left.results("level")["mean"].values
    at = by["rule:full"]["step"]
    np.testing.assert_allclose(level[at + 2] - level[at + 1], 0.05 * (0.5 - level[at + 1]), atol=1e-12)
    inflow = left.results("set")["mean"].values  # as it was in each step: what is set after a step holds from the next
    np.testing.assert_array_equal(inflow, np.where(np.arange(len(inflow)) <= at, 1.0, 0.5))
    fired = {event["by"]: event["text"] for event in left.events("rule-fired")}
    assert fired["rule:flood"] == "rule:flood: open the gates"
    assert fired["rule:far"] == "rule:far: it has come to the end"
    assert not (left.directory / "results.zarr" / "field").exists()


def test_a_pid_settles_against_a_disturbance_and_controllers_that_fail_are_stopped_by_name(tmp_path: Path) -> None:
    """From step 400 on the tank leaks. The run ends when it has settled again, however busy the machine is.

    One rank: the tank's ranks do not wait for each other, an action is as late as they are apart, and a loop that is
    too late never settles.
    """
    one = {"of": "level", "result": "mean"}
    kp, ki, wanted, leak = 0.3, 0.2, 2.0, 400
    settled = f"step > {leak + 100} and abs(level.mean - {wanted}) < 0.01"
    left = tank(
        tmp_path,
        {
            "controllers": {
                "keeper": {"use": "pid", **one, "sets": "inflow", "setpoint": wanted, "kp": kp, "ki": ki},
                "raises": {"use": f"{HERE}:Raises", **one},
                "hangs": {"use": f"{HERE}:Hangs", **one, "max_time": 0.1},
            },
            "rules": [{"name": "settled", "when": settled, "for": "100 steps", "do": "stop"}],
        },
        *("--steps", 100_000, "--leak", leak),
        ranks=1,
        operators={"level": OPERATORS["level"]},
        outputs=[{"of": "level"}],
    )  # fmt: skip
    assert left.status == 1
    assert "controller 'raises': ArithmeticError: no root of 0" in left.stderr
    assert "controller 'hangs': It took longer than max_time, 0.1 s, for one result." in left.stderr
    assert {event["who"] for event in left.events("controller-stopped")} == {
        "controller 'raises'",
        "controller 'hangs'",
    }
    level = left.results("level")["mean"].values
    said = receipts(left)
    assert [each["outcome"] for each in said if each["by"] == "rule:settled"] == ["applied"]
    by_pid = [each for each in said if each["by"] == "controller:keeper" and each["outcome"] == "applied"]
    # How it got there is the machine's business, which may be slow to answer: it stood there, in spite of the leak.
    there = np.abs(level[leak + 100 :] - wanted) < 0.01
    assert np.convolve(there, np.ones(100), "valid").max() == 100
    # The same controller, in NumPy, on the levels that it saw: what it set is what this wants, in the same order.
    errors = wanted - level
    outputs = kp * errors + (1.0 - kp * errors[0]) + ki * 0.05 * np.concatenate([[0.0], np.cumsum(errors[1:])])
    asked = np.array([each["new"]["inflow"] for each in by_pid])
    seen_at = np.array([int(np.abs(outputs - value).argmin()) for value in asked])
    np.testing.assert_allclose(asked, outputs[seen_at], rtol=0, atol=1e-9)
    applied_at = np.array([each["step"] for each in by_pid])
    assert (np.diff(seen_at) > 0).all()
    assert (seen_at <= applied_at).all()
    # The same tank, in NumPy, with what the receipts say: the levels are those of the run.
    inflow, expected = 1.0, [0.0]
    set_after = dict(zip(applied_at.tolist(), asked.tolist(), strict=True))
    for n in range(len(level)):
        expected.append(expected[-1] + 0.05 * (inflow - expected[-1] - (0.5 if n >= leak else 0.0)))
        inflow = set_after.get(n, inflow)
    np.testing.assert_allclose(level, expected[1:], rtol=0, atol=1e-12)
