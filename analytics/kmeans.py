# SPDX-License-Identifier: Apache-2.0
"""Clusters of whole steps, of particles, or of cells."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from analytics.fields import label, power
from analytics.sampling import Reals, Sampling, Whole, centred, common, squared_distances, steps_of
from insitu.model import Array, Variable
from insitu.operator import State

#: Beginnings that are tried, steps that each may take, and the share by which one must be better than another: below
#: it, rounding would decide.
BEGINNINGS, ITERATIONS, BETTER = 8, 300, 1e-9


class KMeans(Sampling):
    """k-means: samples in groups around centroids, with the mean squared distance from them as small as was found.

    With ``over: step`` a sample is a whole step, all variables of `of` and all cells, wherever these lie: in which
    states is the field, and when? With ``over: [step, space]`` (or ``space``, for each step) it is a row: a particle of
    a joined variable, or the values of all variables in one cell: which kinds of particles, or of cells, are there?

    =============  =======  ================  =======================================================================
    result         dtype    dims              value
    =============  =======  ================  =======================================================================
    ``centroids``  float64  cluster, cells    mean of the samples of each cluster; ``u_centroids`` of several variables
    ``share``      float64  cluster           of the samples
    ``inertia``    float64                    mean squared distance of a sample from its centroid, over all features
    ``samples``    int64                      how many samples were clustered
    ``label``      int64    sample            ``over: step``: the cluster of each step that was kept; -1 where none is
    ``sampled``    int64    sample            ``over: step``: the index of that step, in their order; -1 where none is
    ``rows``       int64                      with rows: how many there were, clustered or not
    =============  =======  ================  =======================================================================

    With rows, the centroids have the dims cluster and feature: the numbers of a row, one variable after the other.

    **What is exact.** Up to `sample` samples, all are kept and clustered together when the window ends: as good as any
    batch k-means. Beyond, a uniform sample of so many is (`analytics.sampling`), and not a running average of
    centroids, whose result would depend on order and tree: centroids are then off by their standard error, the spread
    of the cluster over √(share · `sample`). Either way the results are the same for any order, tree and split but for
    rounding. k-means itself finds a local minimum: the best of 8 (k-means++: D. Arthur, S. Vassilvitskii, SODA 2007;
    then Lloyd's iteration), begun by the same drawn numbers in each window.

    **Order of clusters.** Of steps, by the step in which each is first seen; of rows, by the first feature. Clusters
    that are not there (fewer different samples than `clusters`) have a share of 0 and NaN for a centroid.

    **Several variables** must lie on one grid, in the same blocks and units; or ``scale: [2.0, 0.1]`` divides each by
    what it usually varies by. Centroids are multiplied by it again.

    **NaN.** ``nan: skip``: the sample is left out: the whole step with ``over: step``. ``fail``: `OperatorError` names
    variable, step and place. Infinite values are left out as well.

    **Cost.** State: 8 bytes for each value of `sample` samples. With ``over: step`` places exchange 8 `sample`² bytes
    per window, however many cells they have, and its end takes a second for 1,000 steps.

    >>> import numpy as np
    >>> from insitu.model import Variable
    >>> from insitu.testing import batch
    >>> u = Variable("u", np.dtype("f8"), (2,), ("x",), units="m")
    >>> data = batch([u], {"u": [[0.0, 1.0], [9.0, 9.0], [0.0, 3.0]]})
    >>> found = (states := KMeans(of="u", clusters=2, sample=4)).finalize(states.update(states.init(), data))
    >>> found["centroids"], found["label"]
    (array([[0., 2.], [9., 9.]]), array([ 0,  1,  0, -1]))
    """

    clusters: Annotated[int, Field(ge=1, le=256)] = Field(description="how many clusters")

    @model_validator(mode="after")
    def _enough_samples(self) -> "KMeans":
        if self.sample < self.clusters:
            raise ValueError(f"sample: {self.sample} is less than the {self.clusters} clusters; raise it")
        return self

    def describe(self, inputs: Mapping[str, Variable]) -> dict[str, Variable]:
        variables, units = self._stacked(inputs)
        real, whole, k = np.dtype(np.float64), np.dtype(np.int64), self.clusters
        results = []
        if self.keeps_cells:
            for each in variables:
                shape, dims = (k, *(each.shape or ())), ("cluster", *each.dims)
                results.append(Variable(self._named(each.name), real, shape, dims, each.units, f"of {label(each)}"))
        else:
            shape, own = (k, self._features(variables)), units if self.scale is None else ""
            results.append(Variable("centroids", real, shape, ("cluster", "feature"), own, "means of the clusters"))
        results += [
            Variable("share", real, (k,), ("cluster",), "1", "share of the samples"),
            Variable("inertia", real, (), (), power(units, 2), "mean squared distance from the centroids"),
            Variable("samples", whole, (), (), "1", "samples that were clustered"),
        ]
        if self.keeps_cells:
            results += [
                Variable("label", whole, (self.sample,), ("sample",), "1", "cluster of the step"),
                Variable("sampled", whole, (self.sample,), ("sample",), "1", "index of the step"),
            ]
        else:
            results.append(Variable("rows", whole, (), (), "1", "rows, clustered or not"))
        return {result.name: result for result in results}

    def summarize(self, state: State) -> State:
        if not state:
            return {}
        steps, indices, values = steps_of(state)
        return {"steps": steps, "index": indices, "squares": squared_distances(values, np.arange(len(steps)))}

    def combine(self, a: State, b: State) -> State:
        if not a or not b:
            return a or b
        steps, here, there = common(a["steps"], b["steps"])
        squares = a["squares"][np.ix_(here, here)] + b["squares"][np.ix_(there, there)]
        return {"steps": steps, "index": a["index"][here], "squares": squares}

    def finalize(self, state: State) -> dict[str, Array]:
        return super().finalize(state) if self.keeps_cells else self._of_rows(state)

    def finalize_place(self, state: State, summary: State) -> dict[str, Array]:
        known = np.isfinite(np.diagonal(summary["squares"]))
        labels, inertia = clustered(_coordinates(summary["squares"][np.ix_(known, known)]), self.clusters)
        _, first = np.unique(labels, return_index=True)
        labels = np.argsort(np.argsort(first))[labels]
        steps, _, values = steps_of(state)
        _, own, _ = common(steps, summary["steps"][known]) if known.any() else (steps, np.zeros(0, np.int64), steps)
        flat = _means(values[own], labels, self.clusters)
        return self._by_variable(flat, state["count"]) | {
            "share": np.bincount(labels, minlength=self.clusters) / max(1, len(labels)),
            "inertia": np.array(inertia),
            "samples": np.array(len(labels)),
            "label": self._filled(labels),
            "sampled": self._filled(summary["index"][known]),
        }

    def _of_rows(self, state: State) -> dict[str, Array]:
        rows = state["rows"] if state else np.zeros((0, 1))
        labels, inertia = clustered(rows, self.clusters)
        means = _means(rows, labels, self.clusters)
        order = np.lexsort(means.T[::-1])
        if self.scale is not None:
            means = means * np.repeat(self.scale, means.shape[1] // len(self.scale))
        return {
            "centroids": means[order],
            "share": np.bincount(labels, minlength=self.clusters)[order] / max(1, len(labels)),
            "inertia": np.array(inertia),
            "samples": np.array(len(labels)),
            "rows": np.array(state.get("seen", 0)),
        }

    def _by_variable(self, flat: Array, count: list[int]) -> dict[str, Array]:
        parts = np.split(flat, len(self.of), axis=1)
        scales = self.scale or (1.0,) * len(self.of)
        return {
            self._named(name): (part * scale).reshape((self.clusters, *count))
            for name, part, scale in zip(self.of, parts, scales, strict=True)
        }

    def _named(self, variable: str) -> str:
        return "centroids" if len(self.of) == 1 else f"{variable}_centroids"

    def _filled(self, values: Whole) -> Whole:
        return np.pad(values, (0, self.sample - len(values)), constant_values=-1)


def clustered(samples: Reals, clusters: int) -> tuple[Whole, float]:
    """Return the cluster of each of `samples`, (samples, features), numbered without gaps, and the inertia."""
    if not len(samples):
        return np.zeros(0, np.int64), float("nan")
    samples = centred(samples)
    size = float(np.einsum("sf,sf->", samples, samples)) / len(samples)
    rng, best, lowest = np.random.default_rng(0), np.zeros(len(samples), np.int64), np.inf
    for _ in range(BEGINNINGS if clusters > 1 and size > 0 else 1):
        labels, inertia = _lloyd(samples, _beginning(samples, clusters, rng, BETTER * size), BETTER * size)
        if inertia < lowest - BETTER * size or not np.isfinite(lowest):
            best, lowest = labels, inertia
    return np.unique(best, return_inverse=True)[1].astype(np.int64), lowest


def _beginning(samples: Reals, clusters: int, rng: np.random.Generator, floor: float) -> Reals:
    """Return samples far from each other: each drawn by its squared distance from those before it (k-means++)."""
    chosen = [samples[rng.integers(len(samples))]]
    nearest = np.full(len(samples), np.inf)
    while len(chosen) < clusters:
        nearest = np.minimum(nearest, ((samples - chosen[-1]) ** 2).sum(axis=1))
        nearest[nearest <= floor] = 0.0
        if not nearest.any():
            break
        reached = np.cumsum(nearest)
        chosen.append(samples[np.searchsorted(reached, rng.random() * reached[-1])])
    return np.array(chosen)


def _lloyd(samples: Reals, centroids: Reals, floor: float) -> tuple[Whole, float]:
    """Return the cluster of each sample and the mean squared distance, where both have come to rest."""
    lengths = np.einsum("sf,sf->s", samples, samples)
    labels = np.full(len(samples), -1)
    for _ in range(ITERATIONS):
        squares = lengths[:, np.newaxis] - 2 * samples @ centroids.T + np.einsum("kf,kf->k", centroids, centroids)
        # The first of those that are nearest but for rounding, so that this does not decide.
        new = (squares <= squares.min(axis=1, keepdims=True) + floor).argmax(axis=1)
        if (new == labels).all():
            break
        labels = new
        means = _means(samples, labels, len(centroids))
        centroids = np.where(np.isnan(means), centroids, means)
    return labels, float(((samples - centroids[labels]) ** 2).sum(axis=1).mean())


def _means(samples: Reals, labels: Whole, clusters: int) -> Reals:
    """Return the mean of each cluster, NaN for one of nothing."""
    members = np.arange(clusters)[:, np.newaxis] == labels
    middle = samples.mean(axis=0) if len(samples) else np.zeros(samples.shape[1])
    with np.errstate(invalid="ignore"):
        means: Reals = members @ (samples - middle) / members.sum(axis=1, keepdims=True) + middle
    return means


def _coordinates(squares: Reals) -> Reals:
    """Return points that have these squared distances (classical scaling)."""
    if not len(squares):
        return np.zeros((0, 1))
    apart = squares - squares.mean(axis=0)
    values, turns = np.linalg.eigh(-0.5 * (apart - apart.mean(axis=1, keepdims=True)))
    known = values > 1e-13 * max(values[-1], 0.0)
    return turns[:, known] * np.sqrt(values[known]) if known.any() else np.zeros((len(squares), 1))
