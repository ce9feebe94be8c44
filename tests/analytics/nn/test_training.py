# SPDX-License-Identifier: Apache-2.0
"""A trainer is a function of its configuration and its samples: interrupted, replayed, or fed in other pieces."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analytics.nn.learning import Network
from analytics.nn.ledger import Ledger
from analytics.nn.replaying import Replay
from analytics.nn.samples import Samples, Shapes
from analytics.nn.saving import read_model, read_state, write_model, write_state
from analytics.nn.specs import Training, training
from analytics.nn.training import Diverged, Trainer
from insitu.errors import OperatorError

SHAPES = Shapes(inputs=(3,), targets=(2,))


def a_spec(**keys: Any) -> Training:
    basis: dict[str, Any] = {
        "model": {"kind": "mlp", "hidden": [12], "dropout": 0.1},
        "batch": 8,
        "buffer": {"capacity": "8 KiB"},
        "normalise": {"freeze": 40},
        "validation": {"samples": 16, "share": 0.2},
        "optimizer": {"learning_rate": 0.01},
    }
    return training(**basis | keys)


def a_stream(number: int = 400, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, 3.0, (number, 3)).astype(np.float32)
    y = np.stack([x[:, 0] * x[:, 1], np.sin(x[:, 2])], axis=1)
    return Samples(x, y, member=np.arange(number) % 2, step=np.arange(number) // 2)


def feed(trainer: Trainer, samples: Samples, piece: int = 7, batches: int = 2, first: int = 0) -> list[float]:
    """Put a stream in pieces, with so many batches after each, to its end; return all losses."""
    losses, at = [], first
    while not trainer.finished:
        if at < len(samples):
            at += trainer.put(samples[at : at + piece])
        else:
            trainer.end()
        for _ in range(batches):
            trained = trainer.batch()
            losses += [] if trained is None else [trained.loss]
    return losses


def train(trainer: Trainer, batches: int) -> None:
    for _ in range(batches):
        trainer.batch()


def run(replay: Replay) -> None:
    while not replay.finished:
        replay.batch()


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return trainer.network().state_dict()


def require_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, part in a.items():
        assert torch.equal(part, b[name]), name


@pytest.mark.parametrize("buffer", ["fifo", "firo", "reservoir"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_loaded_trainer_goes_on_as_if_it_had_never_stopped(buffer: str, precision: str, tmp_path: Path) -> None:
    extra = {"ratio": 8 if buffer != "reservoir" else 4}
    spec = a_spec(buffer={"kind": buffer, "capacity": "8 KiB"} | extra, precision=precision)
    stream, whole = a_stream(), Trainer(spec, SHAPES)
    first, at = Trainer(spec, SHAPES), 0
    for _ in range(20):
        taken = {trainer.put(stream[at : at + 7]) for trainer in (whole, first)}
        assert len(taken) == 1
        at += taken.pop()
        whole.batch()
        first.batch()
    write_state(tmp_path / "trainer", first.state())
    second = Trainer(spec, SHAPES)
    second.load(read_state(tmp_path / "trainer"))
    assert feed(second, stream, first=at) == feed(whole, stream, first=at)
    require_same(weights(second), weights(whole))
    assert second.validate() == whole.validate()
    assert second.ledger.counts().tolist() == whole.ledger.counts().tolist()
    assert whole.ledger.counts().min() == 0, "what is held out is not trained on"
    assert (whole.ledger.counts() == 0).sum() == whole.heldout.held


def test_a_ledger_replays_a_run_whose_samples_come_otherwise(tmp_path: Path) -> None:
    spec, stream = a_spec(normalise={"freeze": None}), a_stream()
    recorded = Trainer(spec, SHAPES)
    losses = feed(recorded, stream)
    write_state(tmp_path / "ledger", recorded.ledger.state())
    ledger = Ledger()
    ledger.load(read_state(tmp_path / "ledger"))

    replay, again, at = Replay(Trainer(spec, SHAPES), ledger, most=100), [], 0
    order = np.arange(len(stream)) ^ 1  # the members change places
    while not replay.finished:
        if at < len(stream):
            at += replay.put(stream[order[at : at + 10]])
        else:
            replay.end()
        while (trained := replay.batch()) is not None:
            again.append(trained.loss)
    assert again == losses
    require_same(weights(replay.trainer), weights(recorded))
    assert replay.trainer.validate() == recorded.validate()


def test_a_replay_says_what_does_not_fit() -> None:
    spec, stream = a_spec(), a_stream(100)
    recorded = Trainer(spec, SHAPES)
    feed(recorded, stream)
    other = Replay(Trainer(a_spec(seed=1), SHAPES), recorded.ledger)
    other.put(stream)
    with pytest.raises(OperatorError, match="another configuration or seed: it draws other samples"):
        run(other)
    short = Replay(Trainer(spec, SHAPES), recorded.ledger)
    short.put(stream[0:50])
    short.end()
    with pytest.raises(OperatorError, match="tells of member 0 step 25 place 0, which did not come"):
        run(short)
    narrow = Replay(Trainer(spec, SHAPES), recorded.ledger, most=20)
    with pytest.raises(OperatorError, match="more than 20 samples wait for member 0 step 0 place 0"):
        narrow.put(stream[50:100])


def test_runs_with_other_delays_end_alike_where_the_ratio_is_held() -> None:
    stream, ends = a_stream(1200), []
    for delays in (1, 2):
        rng = np.random.default_rng(delays)
        spec = a_spec(buffer={"capacity": "8 KiB", "ratio": 4, "slack": 16}, model={"kind": "mlp", "hidden": [32]})
        trainer, at = Trainer(spec, SHAPES), 0
        while not trainer.finished:
            if rng.random() < 0.5:
                at += trainer.put(stream[at : at + int(rng.integers(1, 12))])
                if at == len(stream):
                    trainer.end()
            elif trainer.batch() is not None and not trainer.buffer.over:
                assert trainer.limiter is not None
                assert abs(trainer.limiter.credit) <= 16
        ends.append((trainer.validate(), trainer.batches))
        held = {tuple(row) for row in trainer.ledger.samples[["member", "step"]][trainer.heldout.ids].tolist()}
        ends[-1] += (held,)
    assert ends[0][2] == ends[1][2], "both are tested with the same samples"
    assert ends[0][1] == pytest.approx(ends[1][1], abs=12)
    assert ends[0][0] == pytest.approx(ends[1][0], rel=0.25)


def test_a_short_stream_drains_and_ends() -> None:
    trainer = Trainer(a_spec(validation={"samples": 0}), SHAPES)
    assert trainer.put(a_stream()[0:5]) == 5
    assert trainer.batch() is None
    trainer.end()
    trained = trainer.batch()
    assert trained is not None
    assert len(trained.ids) == 5
    assert trainer.finished
    assert trainer.batch() is None
    assert math.isnan(trainer.validate())


def test_a_loss_that_is_not_finite_names_the_batch_and_gives_the_weights_back() -> None:
    spec = a_spec(optimizer={"kind": "sgd", "learning_rate": 1e18, "momentum": 0.0}, model="mlp")
    trainer = Trainer(spec, SHAPES)
    fresh = weights(trainer)
    assert trainer.put(a_stream()[0:60]) == 60
    with pytest.raises(
        Diverged, match=r"the loss of batch \d+ is (nan|inf); .* before batch 0\. .* member \d step"
    ) as diverged:
        train(trainer, batches=30)
    assert diverged.value.ids.tolist() == trainer.ledger.batch(diverged.value.batch).tolist()
    restored = weights(trainer)
    require_same(
        {k: v for k, v in restored.items() if "module" in k}, {k: v for k, v in fresh.items() if "module" in k}
    )
    assert math.isfinite(trainer.validate())


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            Samples(np.zeros((2, 4), "f4"), np.zeros((2, 2), "f4")),
            r"inputs of 2 samples have shape \(2, 4\), expected \(2, 3\)",
        ),
        (Samples(np.zeros((2, 3), "f4")), "samples have inputs, and inputs and targets were expected"),
        (
            Samples(np.array([[0, 0, 0], [0, np.nan, 0]], "f4"), np.zeros((2, 2), "f4"), 1, np.array([6, 7])),
            "inputs of member 1 step 7 place 0 are not finite",
        ),
        (Samples(np.array([[0, 1e300, 0]]), np.zeros((1, 2))), "inputs of member 0 step 0 place 0 are not finite"),
    ],
)
def test_samples_that_cannot_be_learned_from_are_refused(samples: Samples, message: str) -> None:
    trainer = Trainer(a_spec(), SHAPES)
    with pytest.raises(OperatorError, match=message):
        trainer.put(samples)
    assert not trainer.ledger.samples.size


def test_classes() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 3)).astype(np.float32)
    stream = Samples(x, (x[:, 0] > 0) * 1 + (x[:, 1] > 0), step=np.arange(600))
    spec = a_spec(loss={"kind": "cross_entropy", "classes": 3}, model={"kind": "mlp", "hidden": [16]})
    trainer = Trainer(spec, Shapes(inputs=(3,), targets=()))
    feed(trainer, stream, batches=6)
    with torch.no_grad():
        found = trainer.network()(torch.from_numpy(x)).argmax(dim=1).numpy()
    assert (found == stream.targets).mean() > 0.9
    with pytest.raises(OperatorError, match="targets of member 0 step 5 place 0 are not a class from 0 to 2"):
        trainer.put(Samples(x[:1], np.array([3]), step=5))
    with pytest.raises(OperatorError, match="not all of them are whole"):
        trainer.put(Samples(x[:1], np.array([0.5]), step=5))


def test_an_autoencoder_learns_its_inputs_and_predicts_in_their_units() -> None:
    rng = np.random.default_rng(2)
    x = (100 + rng.normal(size=(500, 1)) * np.linspace(1, 2, 6)).astype(np.float32)
    spec = a_spec(model={"kind": "autoencoder", "hidden": [16], "latent": 1}, loss="relative_l2")
    trainer = Trainer(spec, Shapes(inputs=(6,)))
    losses = feed(trainer, Samples(x, step=np.arange(500)), batches=6)
    assert trainer.buffer.nbytes <= 8192
    with torch.no_grad():
        made = trainer.network()(torch.from_numpy(x)).numpy()
    assert np.abs(made - x).mean() < 0.3, "their deviation is 1 to 2"
    assert losses[-1] < losses[0]


def test_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    spec, stream = a_spec(), a_stream()
    trainer = Trainer(spec, SHAPES)
    feed(trainer, stream)
    write_model(tmp_path / "m.safetensors", trainer.network(), spec, SHAPES, {"losses": [1.0], "steps": 200})
    model = read_model(tmp_path / "m.safetensors")
    assert (model.spec, model.shapes, model.card) == (spec, SHAPES, {"losses": [1.0], "steps": 200})
    assert isinstance(model.network, Network)
    x = torch.from_numpy(stream.inputs)
    assert torch.equal(model.network(x), trainer.network()(x))
    assert [each.name for each in tmp_path.iterdir()] == ["m.safetensors"]
    with pytest.raises(OperatorError, match="holds model of version 1, expected a state of version 1"):
        read_state(tmp_path / "m.safetensors")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(OperatorError, match="text cannot be read"):
        read_model(tmp_path / "text")


def test_what_was_written_before_stays_whole_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    write_state(path, {"a": np.arange(3), "b": [1, None, "x", {"c": np.float32(2)}]})
    monkeypatch.setattr("os.fsync", _full)
    with pytest.raises(OSError, match="No space left"):
        write_state(path, {"a": np.arange(4)})
    state = read_state(path)
    assert state["a"].tolist() == [0, 1, 2]
    assert state["b"] == [1, None, "x", {"c": 2.0}]
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def _full(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_checkpoint_of_another_model_is_refused() -> None:
    other = Trainer(a_spec(model={"kind": "mlp", "hidden": [13]}), SHAPES)
    with pytest.raises(OperatorError, match="a checkpoint of another model"):
        Trainer(a_spec(), SHAPES).load(other.state())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"device": "cuda"}, "device: cuda asks for a GPU, and PyTorch .* sees 0; take auto or cpu"),
        ({"device": "gpu"}, "device: gpu is none that PyTorch knows"),
        ({"precision": "amp"}, "precision: amp needs a GPU, and device is cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused(keys: dict[str, str], message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        Trainer(a_spec(**keys), SHAPES)
