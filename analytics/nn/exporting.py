# SPDX-License-Identifier: Apache-2.0
"""Networks for other programs: what is written is read back and asked, before anybody relies on it."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np

from analytics.nn.learning import Network
from analytics.nn.needs import torch
from analytics.nn.predicting import predict
from analytics.nn.samples import Shapes
from insitu.errors import OperatorError
from insitu.model import Array

#: Two programs may add in another order.
TOLERANCE = 1e-4


def export_program(network: Network, shapes: Shapes, path: Path) -> None:
    """Write a network with ``torch.export``: raw inputs (n, *inputs) to raw outputs, for any n of at least 1.

    Read it with ``torch.export.load(path).module()``: from Python without this package, or from C++ by AOTInductor.
    `OperatorError` where the network's own code cannot be exported.
    """
    example = _example(shapes)
    try:
        program = torch.export.export(network.eval(), (torch.from_numpy(example),), dynamic_shapes=_ANY_NUMBER)
        torch.export.save(program, path)
    except Exception as error:  # whatever the compiler says of foreign code
        raise OperatorError(f"the network cannot be exported: {error}") from error
    with torch.no_grad():
        found = torch.export.load(path).module()(torch.from_numpy(example)).numpy()
    _require_same(path, found, predict(network, example))


def export_onnx(network: Network, shapes: Shapes, path: Path) -> None:
    """Write a network as ONNX, from ``inputs`` (n, *inputs) float32 to ``outputs``, both raw, for any n.

    What is written is evaluated by ONNX's own reference implementation and compared. Needs the extra ``onnx``.
    """
    for module in ("onnx", "onnxscript"):
        if importlib.util.find_spec(module) is None:
            raise OperatorError(f'an ONNX file needs {module}, which is not installed: pip install "insitu[onnx]"')
    from onnx.reference import ReferenceEvaluator

    example = _example(shapes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own future
            torch.onnx.export(
                network.eval(),
                (torch.from_numpy(example),),
                path,
                input_names=["inputs"],
                output_names=["outputs"],
                dynamic_shapes=_ANY_NUMBER,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter says of foreign code
        raise OperatorError(f"the network cannot be written as ONNX: {error}") from error
    (found,) = ReferenceEvaluator(str(path)).run(["outputs"], {"inputs": example})
    _require_same(path, np.asarray(found), predict(network, example))


#: The first dimension of the one input is free.
_ANY_NUMBER = ({0: torch.export.Dim.DYNAMIC},)


def _example(shapes: Shapes) -> Array:
    return np.random.default_rng(0).normal(size=(3, *shapes.inputs)).astype(np.float32)


def _require_same(path: Path, found: Array, expected: Array) -> None:
    off = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
    if not off <= TOLERANCE:
        path.unlink()
        raise OperatorError(f"{path} would say something else than the network, off by {off:.1e} of its largest value")
