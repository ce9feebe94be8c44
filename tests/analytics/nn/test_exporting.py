# SPDX-License-Identifier: Apache-2.0
"""What other programs read says what the network says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analytics.nn import exporting
from analytics.nn.exporting import export_onnx, export_program
from analytics.nn.predicting import predict
from analytics.nn.samples import Samples, Shapes
from analytics.nn.specs import training
from analytics.nn.training import Trainer
from insitu.errors import OperatorError

SHAPES = Shapes((2, 8, 8), (8, 8))


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    spec = training(model={"kind": "unet", "channels": [2, 4]}, batch=8, validation={"samples": 0})
    made, rng = Trainer(spec, SHAPES), np.random.default_rng(0)
    x = rng.normal(5.0, 3.0, (40, 2, 8, 8)).astype(np.float32)
    made.put(Samples(x, x.sum(axis=1), step=np.arange(40)))
    made.batch()
    return made


def test_a_program_says_what_the_network_says(trainer: Trainer, tmp_path: Path) -> None:
    export_program(trainer.network(), SHAPES, tmp_path / "model.pt2")
    x = np.random.default_rng(1).normal(5.0, 3.0, (7, 2, 8, 8)).astype(np.float32)
    with torch.no_grad():
        found = torch.export.load(tmp_path / "model.pt2").module()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, predict(trainer.network(), x), rtol=1e-5, atol=1e-5)


def test_onnx_says_what_the_network_says(trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # else the exporter's progress bars leave a thread behind
    reference = pytest.importorskip("onnx.reference")
    export_onnx(trainer.network(), SHAPES, tmp_path / "model.onnx")
    x = np.random.default_rng(1).normal(5.0, 3.0, (7, 2, 8, 8)).astype(np.float32)
    (found,) = reference.ReferenceEvaluator(str(tmp_path / "model.onnx")).run(["outputs"], {"inputs": x})
    np.testing.assert_allclose(found, predict(trainer.network(), x), rtol=1e-4, atol=1e-4)


def test_what_says_something_else_is_not_left_behind(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(network: Any, inputs: Any) -> Any:
        return predict(network, inputs) * 1.01

    monkeypatch.setattr(exporting, "predict", other)
    with pytest.raises(OperatorError, match="would say something else than the network, off by 9"):
        export_program(trainer.network(), SHAPES, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())
