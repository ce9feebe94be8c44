# SPDX-License-Identifier: Apache-2.0
"""Training on line without the line: what is learned, what stays on the disk, and how it goes on."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest

from analytics.nn.online import OnLine
from analytics.nn.versions import newest, read_version
from analytics.train import SERIES, Train
from insitu.client.models import Models
from insitu.errors import LocalProtocolError, RunError
from insitu.learner import Taken, Workspace
from insitu.model import Step, Variable

X = Variable("x", np.dtype("f8"), (8, 3), ("member", "number"))
Y = Variable("y", np.dtype("f8"), (8, 2), ("member", "number"))
KEYS = {
    "inputs": ["x", "time"], "targets": "y", "model": {"kind": "mlp", "hidden": [8]}, "batch": 8, "report": 4,
    "buffer": {"capacity": "8 KiB", "ratio": 8}, "validation": {"every": 4, "samples": 16}, "checkpoint": {"every": 1},
}  # fmt: skip


def taken(sequence: int) -> Taken:
    x = np.random.default_rng(sequence).normal(size=(8, 3))
    return Taken(Step(sequence, sequence, 0.1 * sequence), {"x": x, "y": np.stack([x.sum(1), x[:, 0]], axis=1)})


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace("net", tmp_path, "c0ffee", tell=lambda text: told.append(text))


told: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told.clear()
    monkeypatch.setattr("analytics.nn.online.WRITING_PART", 1.0)  # as often as asked for


def begun(place: Workspace, **keys: object) -> OnLine:
    learning = Train.model_validate(KEYS | keys).begin({"x": X, "y": Y}, place)
    assert isinstance(learning, OnLine)
    return learning


def feed(learning: OnLine, first: int, last: int) -> None:
    """Give it steps, and let it work whenever it can."""
    for sequence in range(first, last):
        while not learning.take(taken(sequence)):
            assert learning.work()
        while learning.work():
            pass


def finish(learning: OnLine) -> None:
    learning.end()
    while learning.work():
        pass
    learning.close()


def weights(place: Workspace) -> dict[str, np.ndarray]:
    number = newest(place.models, "net")
    assert number is not None
    return {key: part.numpy() for key, part in read_version(place.models, "net", number).network.state_dict().items()}


def test_a_process_that_died_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    whole, torn = (Workspace("net", tmp_path / name, tell=told.append) for name in ("whole", "torn"))
    one = begun(whole)
    feed(one, 0, 40)
    finish(one)
    feed(begun(torn), 0, 25)  # and never closed
    again = begun(torn)
    assert "goes on from its checkpoint" in told[-1]
    feed(again, 25, 40)
    finish(again)
    for key, part in weights(whole).items():
        np.testing.assert_array_equal(part, weights(torn)[key])
    assert again.counters()["batches"] == one.counters()["batches"]


def test_what_a_checkpoint_has_is_not_learned_from_again_where_it_is_sent_again(place: Workspace) -> None:
    learning = begun(place, buffer={"capacity": "8 KiB", "ratio": 6})
    feed(learning, 0, 24)
    assert not all(learning.take(taken(sequence)) for sequence in range(24, 99))
    assert learning.work()
    while not learning.counters()["samples"] % 8:
        assert learning.work()  # until there is a checkpoint with a part of a step
    came = learning.counters()["samples"]
    assert came % 8
    again = begun(place, buffer={"capacity": "8 KiB", "ratio": 6})
    assert again.counters()["samples"] == came
    for sequence in range(came // 8 - 2, came // 8 + 3):
        while not again.take(taken(sequence)):
            assert again.work()
    while again.work():
        pass
    assert again.counters()["samples"] == 8 * (came // 8 + 3)


def test_rows_cover_the_steps_and_say_what_is_described(place: Workspace) -> None:
    learning = begun(place, optimizer={"kind": "adam", "learning_rate": 0.03})
    feed(learning, 0, 40)
    finish(learning)
    rows = learning.rows()
    assert all(row.values.keys() == SERIES.keys() for row in rows)
    assert sum(row.steps for row in rows) == 40
    assert next(row.first.index for row in rows if row.steps) == 0
    assert max(row.last.index for row in rows) == 39
    loss = [float(row.values["loss"]) for row in rows if row.values["batches"] > 0]
    assert loss[-1] < loss[0]
    assert rows[-1].values["samples"] == 320
    assert learning.rows() == []


def test_a_stream_below_the_threshold_is_said_where_nothing_was_learned(place: Workspace) -> None:
    learning = begun(place)
    finish(learning)
    assert "nothing is learned" in told[-1]
    assert newest(place.models, "net") is None


def test_a_stream_that_ends_below_a_batch_makes_one_last_one(place: Workspace) -> None:
    learning = begun(place, batch=64, report=1, buffer={"capacity": "8 KiB"})
    feed(learning, 0, 4)
    assert not learning.rows()
    finish(learning)
    assert int(learning.rows()[-1].values["batches"]) == 1
    card = json.loads((place.models / "net" / "1" / "card.json").read_text())
    assert learning.counters()["draws"] == card["draws"] == 32 - card["held_out"]


def test_a_full_disk_leaves_the_checkpoint_before_whole(place: Workspace) -> None:
    learning = begun(place)
    feed(learning, 0, 10)
    before = place.checkpoint.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        feed(learning, 10, 14)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert place.checkpoint.read_bytes() == before
    assert "the one before stays" in told[-1]
    assert [path.name for path in place.checkpoint.parent.iterdir()] == ["net.ckpt"]
    begun(place)


def test_the_simulation_gets_the_newest_version_or_the_one_it_asks_for(place: Workspace) -> None:
    models = Models(str(place.directory))
    assert models.get("net", None) is None
    learning = begun(place, publish=8)
    feed(learning, 0, 40)
    finish(learning)
    number = newest(place.models, "net")
    assert number is not None
    assert number > 1
    model = models.get("net", None)
    assert models.get("net", None) is model
    assert model.number == number
    x = taken(100).fields["x"]
    inputs = np.column_stack([x, np.full(8, 10.0)])
    made = model(inputs)
    assert made.shape == (8, 2)
    np.testing.assert_allclose(model(inputs[0]), made[0], rtol=1e-5)
    assert models.get("net", 1).number == 1
    with pytest.raises(RunError, match="holds no model"):
        models.get("net", number + 1)
    with pytest.raises(LocalProtocolError, match="does not reach"):
        Models("/nowhere").get("net", None)


def test_a_version_that_was_changed_is_found_out(place: Workspace) -> None:
    learning = begun(place)
    feed(learning, 0, 20)
    finish(learning)
    file = place.models / "net" / "1" / "model.safetensors"
    card = json.loads(file.with_name("card.json").read_text())
    assert (card["config_hash"], card["last_step"], card["samples"]) == ("c0ffee", 19, 160)
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(RunError, match="not the one that its card was written for"):
        read_version(place.models, "net", 1)
