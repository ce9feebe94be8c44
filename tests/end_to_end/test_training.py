# SPDX-License-Identifier: Apache-2.0
"""Networks that learn from a run: the trainer of one is killed and goes on, and one of two that teach another."""

import json
import signal

import numpy as np
import pytest

from insitu.dashboard.sources import Finished
from insitu.dashboard.views import training
from tests.end_to_end.conftest import Start
from tests.end_to_end.runs import Left, program
from tests.waiting import wait_until

torch = pytest.importorskip("torch")

PLATES, GENERATIONS, STEPS, CELLS = 4, 10, 40, 8
SAMPLES = PLATES * GENERATIONS * STEPS
COMMON = {
    "use": "train", "inputs": ["temperatures", "time", "parameters.scale"], "targets": "u",
    "model": {"kind": "mlp", "hidden": [16]}, "batch": 16, "report": 10, "validation": {"every": 10, "samples": 32},
    "optimizer": {"learning_rate": 0.01},
}  # fmt: skip

#: So little room that the stream is still coming when a process is killed, and an end of work where nothing comes.
BUFFER = {"kind": "firo", "capacity": "16 KiB", "max_reuse": 4}


@pytest.fixture(scope="module")
def left(start_shared: Start) -> Left:
    """A run whose learner `killed` was killed once, when it had written a checkpoint, and one of the `team`, too."""
    options = ("--plates", PLATES, "--generations", GENERATIONS, "--steps", STEPS, "--cells", CELLS)
    operators = {
        "killed": COMMON | {"buffer": BUFFER, "checkpoint": {"every": 5}, "publish": 10, "ensemble": 2},
        # In step at first, and soon apart.
        "team": COMMON
        | {
            "buffer": BUFFER,
            "checkpoint": {"every": 5},
            "parallel": {"trainers": 2, "async": True, "staleness": 2},
            "normalise": {"freeze": 50},
        },
        "trust": {
            "use": "predict",
            "model": "killed",
            "inputs": COMMON["inputs"],
            "targets": "u",
            "uncertainty": "ensemble",
        },
        "mean": {"use": "moments", "of": "u", "over": ["step", "space"]},
    }
    rules = [{"name": "unsure", "when": "trust.uncertainty > 0", "notify": "asked", "once": True}]
    run = start_shared(*program("plates", *options), ranks=2, nodes=2, operators=operators, steering=rules)
    for checkpoint in ("killed.ckpt", "team.1.ckpt"):
        run.until("runs", "test0", "checkpoints", checkpoint, limit_s=120)
        process = run.descendants("insitu.learning", checkpoint.partition(".")[0])[-1]
        process.send_signal(signal.SIGKILL)
    return run.wait(120)


def test_a_killed_learner_goes_on_from_its_checkpoint(left: Left) -> None:
    killed = left.report["learners"]["killed"]
    assert killed["restarts"] == 1
    restarted = {event["operator"]: event["text"] for event in left.events("learner-restarted")}
    assert restarted.keys() == {"killed", "team"}
    assert "SIGKILL" in restarted["killed"]
    assert killed["resumed_at_batch"] % 5 == 0
    assert killed["resumed_at_batch"] > 0
    batches = left.results("killed")["batches"].values
    again = np.flatnonzero(np.diff(batches) <= 0) + 1  # none, if no row was written between checkpoint and death
    assert (batches[again] >= killed["resumed_at_batch"]).all()
    assert batches[-1] == killed["batches"] > killed["resumed_at_batch"]
    # The last row tells of the end, and has no loss where no batch was left for it.
    loss = left.results("killed")["loss"].values[np.diff(batches, prepend=-1) != 0]
    assert np.isfinite(loss).all()
    assert loss[-1] < 0.8 * loss[0]


def test_those_that_are_left_of_a_team_learn_on_until_the_killed_one_is_back(left: Left) -> None:
    team = left.report["learners"]["team"]
    assert team["restarts"] == 1
    assert team["teams"] >= 2
    assert team["staleness"] <= 2
    batches = left.results("team")["batches"].values
    assert (np.diff(batches) >= 0).all()  # nothing that was learned is lost
    assert batches[-1] == team["batches"]
    assert 0.5 * SAMPLES < team["samples"] <= SAMPLES
    loss = left.results("team")["loss"].values[np.diff(batches, prepend=-1) != 0]
    assert loss[-1] < 0.8 * loss[0]
    assert list((left.directory / "models" / "team").iterdir())
    assert not list((left.directory / "checkpoints").glob(".*"))


def test_every_step_is_learned_from_but_those_that_died_with_the_process(left: Left) -> None:
    report = left.report
    assert report["steps"]["delivered"] == GENERATIONS * STEPS
    assert left.status == 0
    assert left.results("mean")["count"].values == [SAMPLES * CELLS**2]
    # What was taken after the checkpoint is gone with the process; what was not, was sent again.
    assert 0.5 * SAMPLES < report["learners"]["killed"]["samples"] <= SAMPLES


def test_predictions_are_compared_with_each_step(left: Left) -> None:
    trust = left.results("trust")
    np.testing.assert_array_equal(trust["first_step"], np.arange(GENERATIONS * STEPS))
    asked = trust["version"].values > 0
    assert np.isnan(trust["error"].values[~asked]).all()
    assert np.isfinite(trust["error"].values[asked]).all()
    assert not trust["trusted"].values[~asked].any()
    assert (np.isfinite(trust["uncertainty"].values) == asked).all()
    assert len(left.events("rule-fired")) == asked.any()


def test_the_model_that_is_left_is_what_was_learned(left: Left) -> None:
    from analytics.nn.versions import newest, read_version

    models = left.directory / "models"
    version = newest(models, "killed")
    assert version is not None
    model = read_version(models, "killed", version)
    assert model.card["last_step"] == GENERATIONS * STEPS - 1
    assert model.card["validation_loss"] == left.results("killed")["validation_loss"].values[-1]
    # Halfway between equal sides and inside, a plate has one temperature at all times.
    plate = model([300, 300, 300, 300, 300, 0.05, 1, 1])
    assert plate.shape == (CELLS, CELLS)
    assert abs(plate.mean() - 300) < 60
    wait_until(lambda: not list(models.rglob(".new-*")), what="nothing half written")


def test_the_simulation_was_told_what_a_version_says_while_it_ran(left: Left) -> None:
    from analytics.nn.versions import read_version

    [file] = left.directory.parents[1].rglob("asked.json")
    asked = json.loads(file.read_text())
    model = read_version(left.directory / "models", "killed", asked["version"])
    np.testing.assert_array_equal(np.array(asked["plate"], np.float32), model(asked["inputs"]))
    assert model.card["features"]["inputs"] == COMMON["inputs"]
    assert model.card["inputs"] == [5 + 1 + 2]


def test_the_dashboard_shows_how_they_learned(left: Left) -> None:
    run = Finished(left.directory)
    run.refresh(watched=True, reads=True)
    shown = training.update([run], {})
    batches = left.results("killed")["batches"].values
    assert shown.sources["loss-killed-0"]["x"] == batches.tolist()
    assert dict(shown.cards["cards-killed-0"])["started anew"] == "1 time"
    trust = left.results("trust")
    asked = np.isfinite(trust["error"].values).any()  # else all steps had passed before there was a model
    assert shown.sources["error-trust-0"]["x"] == (trust["last_step"].values.tolist() if asked else [])
    assert ("not asked yet" in shown.texts["say-trust-0"]) != asked
