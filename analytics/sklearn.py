# SPDX-License-Identifier: Apache-2.0
"""Any estimator of scikit-learn that learns in batches."""

import functools
import inspect
import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from analytics.estimators import class_of, made
from analytics.sampling import Reals, Sampling, by_lot, common, require_squares, steps_of
from insitu.errors import OperatorError
from insitu.model import Array, Variable
from insitu.operator import Names, State

#: Numbers in a step that may be gathered from all places.
MOST_FEATURES = 4096
#: Drawn samples from which the shapes of attributes are found.
TRIED = 512


class Sklearn(Sampling):
    """An estimator of scikit-learn (or of its kind) with ``partial_fit``, taught with samples of the stream.

    ``estimator: sklearn.cluster.MiniBatchKMeans`` names the class, ``options: {n_clusters: 4}`` are its arguments, and
    ``attributes: [cluster_centers_]`` which of its fitted attributes are results. Those that learn from targets
    are for ``use: partial_fit``. Needs scikit-learn: ``pip install 'insitu[learn]'``.

    With ``over: step`` a sample is a whole step, all variables of `of` one after the other: scalars, probes, short
    profiles. With ``over: [step, space]`` (or ``space``, for each step) it is a row: a particle of a joined variable,
    or the values of all variables in one cell.

    ===========  =========  =======================================================================================
    result       dims       value
    ===========  =========  =======================================================================================
    ATTRIBUTE    its own    each of `attributes`, without the ``_`` at its end; floats as float64, the others as int64
    ``samples``             how many samples were learned from (int64)
    ``rows``                with rows: how many there were (int64)
    ``applied``  sample     ``apply: predict`` (or transform, score_samples ...), with ``over: step``: what that method
                            says of each step that was kept; a second dim where it says several numbers
    ``sampled``  sample     with `apply`: the index of that step; -1 where there is none (int64)
    ===========  =========  =======================================================================================

    Nothing learned (no sample): 0 of integers, NaN of floats. Shapes are found beforehand, by teaching 512 drawn
    samples; an attribute that has another shape in the end fails the operator.

    **Places.** Models that learned from different parts of the stream cannot be merged, and one for each rank would
    give another answer for each number of ranks. So samples are brought together, and one model learns from all when
    the window ends: from up to `sample` (a uniform sample beyond, `analytics.sampling`), in `batch` at a time. The
    results are those of ``partial_fit`` on one process over the same samples: for any order, tree and split. With
    ``over: step`` the numbers of a step must be gathered for that, so a step may have 4,096 at most; reduce larger ones
    first. Each window starts with a new model.

    **Order.** Samples come by lot, not in time, as stochastic gradients like it. ``random_state`` is 0 if the estimator
    has one and `options` do not say otherwise.

    **Several variables, NaN, cost**: as `kmeans`, plus what the estimator takes; but attributes are of scaled values.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (2,), ("x",))
    >>> scaler = Sklearn(of="u", estimator="sklearn.preprocessing.StandardScaler", attributes=["mean_", "var_"])
    >>> found = scaler.finalize(scaler.update(scaler.init(), batch([u], {"u": [[0.0, 4.0], [2.0, 8.0]]})))
    >>> found["mean"], found["var"], int(found["samples"])
    (array([1., 6.]), array([1., 4.]), 2)
    """

    estimator: str = Field(description="the class, such as sklearn.cluster.MiniBatchKMeans")
    options: dict[str, Any] = Field(default={}, description="its arguments")
    attributes: Names = Field(description="fitted attributes that are results, such as cluster_centers_")
    apply: str | None = Field(default=None, description="a method to apply to the steps that were kept, as predict")
    batch: Annotated[int, Field(ge=1)] = Field(default=256, description="how many samples are learned at once")

    @field_validator("estimator")
    @classmethod
    def _learns_in_batches(cls, estimator: str) -> str:
        _class_of(estimator)
        return estimator

    @model_validator(mode="after")
    def _keys_belong_together(self) -> "Sklearn":
        kind = _class_of(self.estimator)
        if self.apply is not None and not self.keeps_cells:
            raise ValueError(f"apply: {self.apply} is of whole steps; take over: step or leave it out")
        if self.apply is not None and not callable(getattr(kind, self.apply, None)):
            raise ValueError(f"apply: {self.estimator} has no method {self.apply}")
        for name in self.attributes:
            if not name.endswith("_") or name in ("samples_", "rows_", "applied_", "sampled_"):
                raise ValueError(f"attributes: {name} is no fitted attribute; their names end in _")
        try:
            self._new()
        except Exception as error:  # the estimator's own objection, whatever its class
            raise ValueError(f"options: {self.estimator} refuses {self.options}: {error}") from error
        return self

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        variables, _ = self._stacked(inputs)
        features = self._features(variables)
        if self.keeps_cells:
            features = len(variables) * math.prod(variables[0].shape or ())
            if features > MOST_FEATURES:
                raise OperatorError(
                    f"a step of {' and '.join(self.of)} has {features} numbers, and at most {MOST_FEATURES} can be "
                    "gathered from all places; select fewer, take over: [step, space] to learn from cells, or use pca "
                    "or kmeans, which need not gather"
                )
        results = [
            Variable(name, value.dtype, value.shape, _dims(name, value), "", f"{name}_ of {self.estimator}")
            for name, value in self._read(self._tried(features)).items()
        ]
        whole = np.dtype(np.int64)
        results.append(Variable("samples", whole, (), (), "1", "samples that were learned from"))
        if not self.keeps_cells:
            results.append(Variable("rows", whole, (), (), "1", "rows, learned from or not"))
        if self.apply is not None:
            one = self._applied(self._tried(features), _drawn(features))[0]
            shape, dims = (self.sample, *one.shape), ("sample", *_dims("applied", one))
            results.append(Variable("applied", one.dtype, shape, dims, "", f"{self.apply} of {self.estimator}"))
            results.append(Variable("sampled", whole, (self.sample,), ("sample",), "1", "index of the step"))
        return {result.name: result for result in results}

    def summarize(self, state: State) -> State:
        if not state:
            return {}
        steps, indices, values = steps_of(state)
        piece = {key: state[key] for key in ("start", "count", "shape")} | {"values": values}
        return {"steps": steps, "index": indices, "pieces": [piece]}

    def combine(self, a: State, b: State) -> State:
        if not a or not b:
            return a or b
        steps, here, there = common(a["steps"], b["steps"])
        pieces = [
            piece | {"values": piece["values"][its]}
            for each, its in ((a, here), (b, there))
            for piece in each["pieces"]
        ]
        return {"steps": steps, "index": a["index"][here], "pieces": pieces}

    def finalize(self, state: State) -> dict[str, Array]:
        if self.keeps_cells:
            return super().finalize(state)
        rows = state["rows"] if state else np.zeros((0, len(self.of)))
        results, _ = self._learned(rows)
        return results | {"rows": np.array(state.get("seen", 0))}

    def finalize_place(self, state: State, summary: State) -> dict[str, Array]:
        whole = _put_together(summary["pieces"], len(self.of))
        known = np.isfinite(whole).all(axis=1)
        samples, indices = whole[known], summary["index"][known]
        results, model = self._learned(samples[by_lot(summary["steps"][known])])
        if self.apply is None:
            return results
        some = self._applied(model, samples if len(samples) else _drawn(whole.shape[1]))
        applied = np.full((self.sample, *some.shape[1:]), _blank(some.dtype), some.dtype)
        applied[: len(samples)] = some[: len(samples)]
        sampled = np.pad(indices, (0, self.sample - len(indices)), constant_values=-1)
        return results | {"applied": applied, "sampled": sampled}

    def _learned(self, samples: Reals) -> tuple[dict[str, Array], Any]:
        """Return the results and the model; of nothing, blank results and a model that was tried."""
        require_squares(samples)
        model = self._taught(samples) if len(samples) else self._tried(samples.shape[1])
        results = self._read(model)
        if not len(samples):
            results = {name: np.full_like(value, _blank(value.dtype)) for name, value in results.items()}
        return results | {"samples": np.array(len(samples))}, model

    def _tried(self, features: int) -> Any:
        return self._taught(_drawn(features))

    def _taught(self, samples: Reals) -> Any:
        """Return a new model that has learned from samples, in batches of nearly the same size."""
        model = self._new()
        try:
            for batch in np.array_split(samples, -(-len(samples) // self.batch)):
                model.partial_fit(batch)
        except Exception as error:
            raise OperatorError(
                f"{self.estimator} cannot learn from {len(samples)} samples of {samples.shape[1]} numbers, "
                f"{self.batch} at once: {error}"
            ) from error
        return model

    def _new(self) -> Any:
        return made(_class_of(self.estimator), self.options, 0)

    def _read(self, model: Any) -> dict[str, Array]:
        found = {}
        for name in self.attributes:
            value = np.asarray(getattr(model, name, None))
            if value.dtype.kind not in "biuf":
                known = [each for each in vars(model) if each.endswith("_") and not each.startswith("_")]
                raise OperatorError(f"{self.estimator} has no numbers in {name} (fitted are {', '.join(known)})")
            found[name[:-1]] = _plain(value)
        return found

    def _applied(self, model: Any, samples: Reals) -> Array:
        return _plain(np.asarray(getattr(model, str(self.apply))(samples)))


@functools.cache
def _class_of(estimator: str) -> Any:
    """Return the class, or raise `ValueError` with a sentence."""
    kind = class_of(estimator, "sklearn", "learn", "sklearn.cluster.MiniBatchKMeans")
    fit = getattr(kind, "partial_fit", None)
    if fit is None:
        raise ValueError(f"{estimator} has no partial_fit, so it cannot learn in batches; take one that has")
    targets = inspect.signature(fit).parameters.get("y")
    if targets is not None and targets.default is inspect.Parameter.empty:
        raise ValueError(f"{estimator} learns from targets; use: partial_fit is for that")
    return kind


@functools.lru_cache(maxsize=8)
def _drawn(features: int) -> Reals:
    """Return samples that any estimator can learn from: positive, and none like another."""
    return np.random.default_rng(0).uniform(1.0, 2.0, (TRIED, features))


def _put_together(pieces: list[State], variables: int) -> Reals:
    """Return whole steps, (steps, numbers), of what places have of them."""
    shape = pieces[0]["shape"]
    whole = np.full((len(pieces[0]["values"]), variables, *shape), np.nan)
    for piece in pieces:
        cells = tuple(slice(low, low + length) for low, length in zip(piece["start"], piece["count"], strict=True))
        whole[(slice(None), slice(None), *cells)] = piece["values"].reshape((len(whole), variables, *piece["count"]))
    return whole.reshape(len(whole), -1)


def _plain(value: Array) -> Array:
    return value.astype(np.float64 if value.dtype.kind == "f" else np.int64)


def _blank(dtype: np.dtype[Any]) -> float:
    return np.nan if dtype.kind == "f" else 0


def _dims(name: str, value: Array) -> tuple[str, ...]:
    """Name the dimensions of an attribute, which has none of its own."""
    return tuple(f"{name}_{k}" for k in range(value.ndim))
