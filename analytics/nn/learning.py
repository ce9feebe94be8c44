# SPDX-License-Identifier: Apache-2.0
"""A network that learns batch by batch: weights, optimizer and normalisation, without buffer or stream."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from analytics.nn.architectures import Foreign
from analytics.nn.draws import ENSEMBLE, WEIGHTS, Draws
from analytics.nn.models import Ensemble, build
from analytics.nn.needs import torch
from analytics.nn.normalising import Normaliser
from analytics.nn.optimizing import loss_function, optimizer
from analytics.nn.samples import Rows, Shapes
from analytics.nn.specs import Training
from insitu.errors import OperatorError
from insitu.model import Array, Extent
from insitu.operator import State

Tensor = torch.Tensor
_Dropout = torch.nn.modules.dropout._DropoutNd

#: Batches from one copy of weights known to be good to the next: a copy costs about a tenth of a small batch.
KEEP_EVERY = 32


class Network(torch.nn.Module):
    """A trained module that takes and gives raw values, as they are on the stream: it scales them itself.

    Class scores (``cross_entropy``) are given as they are. Of an `Ensemble` it gives the mean.
    """

    input_mean: Tensor
    input_std: Tensor
    output_mean: Tensor
    output_std: Tensor

    def __init__(self, module: torch.nn.Module, inputs: Normaliser, outputs: Normaliser | None) -> None:
        super().__init__()
        self.module = module
        parts = {"input_mean": inputs.mean, "input_std": inputs.std}
        if outputs is not None:
            parts |= {"output_mean": outputs.mean, "output_std": outputs.std}
        self.scales_outputs = outputs is not None
        for name, part in parts.items():
            self.register_buffer(name, torch.from_numpy(np.array(part)))

    def forward(self, x: Tensor) -> Tensor:
        return self.each(x).mean(dim=0)

    def each(self, x: Tensor) -> Tensor:
        """Return what each network of an ensemble gives, (networks, n, *outputs); of any other (1, n, *outputs)."""
        made = torch.stack(_each(self.module, self.module((x - self.input_mean) / self.input_std)))
        return made * self.output_std + self.output_mean if self.scales_outputs else made


class Learner:
    """What changes with each batch: a function of spec, shapes and batches, to the last bit on one thread.

    Raises `OperatorError` where the device is not there or the network's shapes do not fit.
    """

    def __init__(self, spec: Training, shapes: Shapes) -> None:
        self.spec, self.shapes = spec, shapes
        self.device = device(spec.device)
        if spec.precision == "amp" and self.device.type == "cpu":
            raise OperatorError("precision: amp needs a GPU, and device is cpu; take bf16 or fp32")
        self.module = module_of(spec, shapes).to(self.device)
        self.optimizer = optimizer(spec.optimizer, self.module)
        self.inputs, self.outputs = normalisers(spec, shapes)
        self._loss, self._raw = loss_function(spec.loss), spec.loss.kind == "relative_l2"
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=spec.precision == "amp")
        self._noise = Draws(spec.seed, WEIGHTS)
        # A network of one's own may draw by itself; to put the generator in place costs a hundredth of a small batch.
        self._has_noise = isinstance(spec.model, Foreign) or any(
            isinstance(part, _Dropout) and part.p for part in self.module.modules()
        )
        #: Which of those who learn together this one is.
        self.number = 0
        #: How often the weights were moved.
        self.steps = 0
        self._good = (0, copy.deepcopy(self.module.state_dict()))

    def observe(self, rows: Rows) -> None:
        """Learn means and deviations of new samples."""
        self.inputs.fold(rows["inputs"])
        if self.outputs is not None and self.outputs is not self.inputs:
            self.outputs.fold(rows["targets"])

    @property
    def finished(self) -> bool:
        """Whether nobody learns beside this one any more."""
        return True

    def idle(self, drained: bool) -> None:
        """Take part in a step of others without samples, and tell them whether there will be none; nothing here."""

    @property
    def batch(self) -> int:
        """How many samples the next step is to have."""
        return self.spec.batch

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        return self.spec.optimizer.learning_rate * self.spec.schedule.at(self.steps, self.spec.batch)

    def learn(self, rows: Rows) -> float:
        """Train one batch and return its loss, of the weights before it. The number of the step chooses rate and noise.

        A loss that is not finite is returned, too, and then the weights are the last ones known to be good, of a step
        at most `KEEP_EVERY` before; `good` says which.
        """
        self.module.train()
        self.optimizer.zero_grad()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss = self._noisy_loss_of(rows)
        value = self._agreed(float(loss.detach()))
        if not math.isfinite(value):
            self.module.load_state_dict(self._good[1])
            return value
        if self.steps % KEEP_EVERY == 0:
            self._good = (self.steps, copy.deepcopy(self.module.state_dict()))
        # Each network of an ensemble moves by its own loss, whatever the number of them.
        self._scaler.scale(loss if self.spec.ensemble == 1 else loss * self.spec.ensemble).backward()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.steps += 1
        return value

    @property
    def good(self) -> int:
        """Before which step the weights were as they are restored."""
        return self._good[0]

    @torch.no_grad()
    def loss(self, rows: Rows) -> float:
        """Return the mean loss of any number of samples; NaN of none. Nothing is learned."""
        self.module.eval()
        samples = len(rows["inputs"])
        total = 0.0
        for first in range(0, samples, self.spec.batch):
            some = {name: values[first : first + self.spec.batch] for name, values in rows.items()}
            total += float(self._loss_of(some)) * len(some["inputs"])
        return total / samples if samples else math.nan

    @torch.no_grad()
    def confusion(self, rows: Rows) -> Array:
        """Return how often a class (first index) was taken for which (second), (classes, classes) int64."""
        classes = self.spec.loss.classes or 0
        table = np.zeros((classes, classes), np.int64)
        self.module.eval()
        for first in range(0, len(rows["inputs"]), self.spec.batch):
            some = {name: values[first : first + self.spec.batch] for name, values in rows.items()}
            taken = torch.stack(self._predicted(some)).mean(dim=0).argmax(dim=1).cpu().numpy()
            np.add.at(table, (some["targets"].reshape(-1), taken.reshape(-1)), 1)
        return table

    def network(self) -> Network:
        """Return a copy of what was learned so far, on the CPU, that takes and gives raw values."""
        module = copy.deepcopy(self.module).cpu()
        module.zero_grad()
        return Network(module, self.inputs, self.outputs).eval()

    def state(self) -> State:
        found: State = {
            "steps": self.steps,
            "module": _plain(self.module.state_dict()),
            "optimizer": _plain(self.optimizer.state_dict()["state"]),
            "scaler": _plain(self._scaler.state_dict()),
            "inputs": self.inputs.state(),
        }
        return found if self.outputs in (None, self.inputs) else found | {"outputs": self.outputs.state()}

    def load(self, state: State) -> None:
        """Go on where `state` was taken; where it is without weights, which others have, from those that are here."""
        if "module" in state:
            self._load_weights(state)
        self.inputs.load(state["inputs"])
        if self.outputs is not None and self.outputs is not self.inputs:
            self.outputs.load(state["outputs"])
        self.steps = int(state["steps"])
        self._good = (self.steps, copy.deepcopy(self.module.state_dict()))

    def _load_weights(self, state: State) -> None:
        try:
            self.module.load_state_dict(_tensors(state["module"]))
        except RuntimeError as error:
            raise OperatorError(f"a checkpoint of another model: {error}") from error
        groups = self.optimizer.state_dict()["param_groups"]
        per_weight = {int(key): _tensors(part) for key, part in state["optimizer"].items()}
        self.optimizer.load_state_dict({"state": per_weight, "param_groups": groups})
        self._scaler.load_state_dict(state["scaler"])

    def _forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.module(x)
        return made

    def _agreed(self, loss: float) -> float:
        """Return the loss that counts: of all samples, where others learn beside this one."""
        return loss

    def _predicted(self, rows: Rows) -> list[Tensor]:
        """Return what each network makes of the scaled inputs, as float32."""
        raw = torch.from_numpy(rows["inputs"]).to(self.device)
        with self._precision():
            prediction = self._forward(self._scaled(raw, self.inputs))
        return [each.float() for each in _each(self.module, prediction)]

    def _noisy_loss_of(self, rows: Rows) -> Tensor:
        """Return the loss of a batch that is learned, in which layers that draw do so."""
        with self._seeded() if self._has_noise else nullcontext():
            return self._loss_of(rows)

    def _loss_of(self, rows: Rows) -> Tensor:
        target = torch.from_numpy(rows["targets" if "targets" in rows else "inputs"]).to(self.device)
        predictions = self._predicted(rows)
        if self.outputs is not None and self._raw:
            std, mean = self._on(self.outputs.std), self._on(self.outputs.mean)
            predictions = [each * std + mean for each in predictions]
        elif self.outputs is not None:
            target = self._scaled(target, self.outputs)
        losses = [self._loss(each, target) for each in predictions]
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _scaled(self, raw: Tensor, by: Normaliser) -> Tensor:
        # A copy in any case: what a module changes in place must not be the sample.
        return raw.clone() if by.per == "none" else (raw - self._on(by.mean)).div_(self._on(by.std))

    def _on(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _precision(self) -> AbstractContextManager[Any]:
        kinds = {"bf16": torch.bfloat16, "amp": torch.float16}
        dtype = kinds.get(self.spec.precision)
        return torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext()

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        """Let layers that draw (dropout) draw what belongs to this step, and nobody else notice."""
        seed = int(self._noise.words(self.steps, 1)[0] >> np.uint64(1))
        gpus = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus):
            # `torch.manual_seed` would keep a traceback for a GPU that is never used, with each batch.
            torch.default_generator.manual_seed(seed)
            if gpus:
                torch.cuda.manual_seed(seed)
            yield


def device(name: str) -> torch.device:
    """Return the device of a name; `OperatorError` for a GPU that is not there.

    >>> device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise OperatorError(f"device: {name} is none that PyTorch knows; take auto, cpu, cuda or cuda:1") from error
    if found.type == "cuda" and not (torch.cuda.is_available() and (found.index or 0) < torch.cuda.device_count()):
        raise OperatorError(
            f"device: {name} asks for a GPU, and PyTorch {torch.__version__} sees {torch.cuda.device_count()}; "
            "take auto or cpu, or install a PyTorch with CUDA"
        )
    return found


def module_of(spec: Training, shapes: Shapes) -> torch.nn.Module:
    """Return the network of a configuration, with weights that its seed draws; of an ensemble all, each by a seed."""
    # Of a seed PyTorch's generator takes no more than 32 bits.
    others = Draws(spec.seed, ENSEMBLE).words(0, spec.ensemble - 1) >> np.uint64(32)
    made = [build(spec.model, shapes.inputs, outputs_of(spec, shapes), seed) for seed in [spec.seed, *others.tolist()]]
    return made[0] if spec.ensemble == 1 else Ensemble(made)


def normalisers(spec: Training, shapes: Shapes) -> tuple[Normaliser, Normaliser | None]:
    """Return what scales inputs and outputs: the same of an autoencoder, and nothing for scores of classes."""
    normalise = spec.normalise
    inputs = Normaliser(shapes.inputs, normalise.per, normalise.freeze)
    if spec.loss.classes is not None:
        return inputs, None
    return inputs, inputs if shapes.targets is None else Normaliser(shapes.targets, normalise.per, normalise.freeze)


def network_of(spec: Training, shapes: Shapes) -> Network:
    """Return a network that has not learned anything, from raw inputs to raw outputs."""
    return Network(module_of(spec, shapes), *normalisers(spec, shapes))


def outputs_of(spec: Training, shapes: Shapes) -> Extent:
    """Return the shape that the network must give for a sample."""
    targets = shapes.inputs if shapes.targets is None else shapes.targets
    return targets if spec.loss.classes is None else (spec.loss.classes, *targets)


def _each(module: torch.nn.Module, made: Tensor) -> list[Tensor]:
    """Return what each network of a module has made: of an ensemble several."""
    return list(made.unbind()) if isinstance(module, Ensemble) else [made]


def _plain(part: Any) -> Any:
    """Return tensors as arrays, in dicts whose keys are strings."""
    if isinstance(part, torch.Tensor):
        return part.detach().cpu().numpy().copy()
    if isinstance(part, Mapping):
        return {str(key): _plain(value) for key, value in part.items()}
    return part


def _tensors(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        return torch.from_numpy(np.array(part))
    if isinstance(part, Mapping):
        return {key: _tensors(value) for key, value in part.items()}
    return part
