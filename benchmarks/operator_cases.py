# SPDX-License-Identifier: Apache-2.0
"""What each operator is given to fold, and the best library for the same work, as one would call it.

A library gets the whole window at once, in memory, as it wants it; that it has to be there is its cost, which is not
measured. Where a library would take minutes it is given a `share` of the cells. Libraries are imported when they are
called: one that is not installed is left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from insitu.model import Array, Variable
from insitu.operator import Operator
from insitu.registry import load

Fields = Mapping[str, Array]
Library = Callable[[Fields], object]
#: The side of the fields at full size, and the steps of a window.
SIDE, STEPS = 512, 32
#: Waves in x, and noise: regions beyond THRESHOLD are neither single cells nor the whole field.
THRESHOLD = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """One operator, the steps of its window by variable, and a rival: the library called, with how much of it."""

    operator: Operator
    inputs: tuple[Variable, ...]
    fields: Fields
    rival: str
    call: Library
    share: float = 1.0

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.fields.values())


def cases(parts: int = 1) -> dict[str, Case]:
    """Return a case of each operator, with cells, particles or numbers of a step divided by `parts`."""
    rng = np.random.default_rng(0)
    side = int(SIDE / parts**0.5)
    y, x = np.mgrid[:side, :side] / side
    waves = np.array([np.sin(6 * x + 0.2 * n) * np.cos(9 * y - 0.1 * n) for n in range(STEPS)])
    uv = {name: waves + 0.3 * rng.normal(size=waves.shape) for name in "uv"}
    u, v = (Variable(name, np.dtype("f8"), (side, side), ("y", "x")) for name in "uv")
    one, auto = ({"u": uv["u"]}, (u,)), {"bins": 64, "range": "auto"}
    return {
        "moments": _case("moments", *one, "NumPy", _moments, over="step", window=STEPS),
        "covariance": _case("covariance", uv, (u, v), "NumPy", _covariance, over="step"),
        "histogram": _case("histogram", *one, "NumPy", _histogram, over=["step", "space"], bins=100, range=[-3, 3]),
        "quantiles": _case("quantiles", *one, "NumPy", _quantiles, over="step", method="histogram", **auto),
        "exceedance": _case("exceedance", *one, "NumPy", _exceedance, over="step", threshold=THRESHOLD),
        "extremes": _case("extremes", *one, "NumPy", _extremes, over=["step", "space"], largest=10),
        "autocorrelation": _case("autocorrelation", *one, "NumPy, FFT", _autocorrelation, over="step", lags=10),
        "spectrum": _case("spectrum", *one, "SciPy", _spectrum, over="step", segment=16, window=STEPS),
        "profile": _case("profile", *one, "NumPy", _profile, over=["step", "space"], along="y"),
        "events": _case("events", *one, "SciPy", _events, over="space", threshold=THRESHOLD),
        **of_particles(parts, rng),
        **of_whole_steps(parts, rng),
        "sobol": of_members(parts, rng),
    }  # fmt: skip


def _case(
    use: str, fields: Fields, inputs: tuple[Variable, ...], library: str, call: Library, share: float = 1.0, **keys: Any
) -> Case:
    return Case(load(use)(of=[each.name for each in inputs], **keys), inputs, fields, library, call, share)


def of_particles(parts: int, rng: np.random.Generator) -> dict[str, Case]:
    """Particles that walk at random, in a box of the same density."""
    n, box = 8000 // parts, 20.0 / parts ** (1 / 3)
    walks = np.cumsum(0.05 * rng.normal(size=(STEPS, n, 3)), axis=0) + rng.uniform(0, box, (n, 3))
    place = Variable("position", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
    number = Variable("id", np.dtype("i8"), None, ("atom",))
    both = ["step", "space"]
    rdf = _case(
        "rdf", {"position": walks % box}, (place,), "MDAnalysis", lambda fields: _rdf(fields, box), over=both, bins=100,
        box=[box] * 3, cutoff=2.5, window=STEPS,
    )  # fmt: skip
    fields = {"position": walks, "id": np.tile(np.arange(n), (STEPS, 1))}
    made: Any = load("msd")
    msd = Case(made(of="position", id="id", over=both, window=STEPS), (place, number), fields, "NumPy", _msd)
    return {"rdf": rdf, "msd": msd}


def of_whole_steps(parts: int, rng: np.random.Generator) -> dict[str, Case]:
    """Sixty patterns that swing, with noise."""
    cells, steps, rank = 4096 // parts, 1024, 60
    patterns = np.linalg.qr(rng.normal(size=(cells, rank)))[0].T / np.arange(1, rank + 1)[:, np.newaxis]
    turn = np.exp(1j * np.outer(np.arange(steps), rng.uniform(0.1, 2, rank // 2)))
    swings = np.hstack([turn.real, turn.imag]) @ patterns + 1e-3 * rng.normal(size=(steps, cells))
    x32, x64 = (Variable("x", np.dtype(kind), (cells,), ("cell",)) for kind in ("f4", "f8"))
    single, double = ({"x": swings.astype(kind)} for kind in ("f4", "f8"))
    kmeans = {"sample": steps, "window": steps}
    return {
        "pca": _case("pca", single, (x32,), "scikit-learn", _pca, components=16, window=steps),
        "dmd": _case("dmd", double, (x64,), "PyDMD", _dmd, components=16, window=steps),
        "kmeans": _case("kmeans", double, (x64,), "scikit-learn", _kmeans, clusters=4, **kmeans),
        "diffusion_map": _case("diffusion_map", double, (x64,), "scikit-learn", _diffusion, sample=steps),
        "sklearn": _case(
            "sklearn", double, (x64,), "scikit-learn", _scaler, sample=steps,
            estimator="sklearn.preprocessing.StandardScaler", attributes="mean_",
        ),
    }  # fmt: skip


def of_members(parts: int, rng: np.random.Generator, groups: int = 128) -> Case:
    """Outputs of three parameters, in groups of five members."""
    cells = 4096 // parts
    a, b = rng.uniform(size=(2, groups, 3))
    mixed = [np.where(np.arange(3) == k, b, a) for k in range(3)]
    x = np.stack([a, b, *mixed], axis=1).reshape(-1, 3)
    outputs = np.sin(x @ rng.normal(size=(3, cells))) + x[:, :1]
    u = Variable("u", np.dtype("f8"), outputs.shape, ("member", "cell"))
    return _case("sobol", {"u": outputs[np.newaxis]}, (u,), "SALib", _sobol, share=16 / cells, parameters=3)


def _moments(fields: Fields) -> object:
    u = fields["u"]
    return u.mean(axis=0), u.var(axis=0, ddof=1), u.min(axis=0), u.max(axis=0)


def _covariance(fields: Fields) -> object:
    u, v = (each - each.mean(axis=0) for each in fields.values())
    return [np.einsum("s...,s...->...", p, q) for p, q in ((u, u), (v, v), (u, v))]


def _histogram(fields: Fields) -> object:
    return np.histogram(fields["u"], 100, (-3, 3))


def _quantiles(fields: Fields) -> object:
    return np.quantile(fields["u"], [0.05, 0.5, 0.95], axis=0)


def _exceedance(fields: Fields) -> object:
    beyond = fields["u"] > THRESHOLD
    longest = run = np.zeros(beyond.shape[1:], int)
    for step in beyond:
        run = np.where(step, run + 1, 0)
        longest = np.maximum(longest, run)
    return beyond.mean(axis=0), beyond.argmax(axis=0), beyond[::-1].argmax(axis=0), longest


def _extremes(fields: Fields) -> object:
    u = fields["u"].reshape(-1)
    return np.unravel_index(np.argpartition(u, -10)[-10:], fields["u"].shape)


def _autocorrelation(fields: Fields) -> object:
    apart = fields["u"] - fields["u"].mean(axis=0)
    return np.fft.irfft(np.abs(np.fft.rfft(apart, 2 * STEPS, axis=0)) ** 2, axis=0)[:11]


def _spectrum(fields: Fields) -> object:
    from scipy.signal import welch

    return welch(fields["u"], nperseg=16, axis=0)


def _profile(fields: Fields) -> object:
    return fields["u"].mean(axis=(0, 2)), fields["u"].var(axis=(0, 2))


def _events(fields: Fields) -> object:
    from scipy import ndimage

    found = []
    for step in fields["u"]:
        labels, n = ndimage.label(step > THRESHOLD)
        every = np.arange(1, n + 1)
        sizes = ndimage.sum_labels(np.ones_like(step), labels, every)
        found.append((sizes, ndimage.center_of_mass(labels > 0, labels, every), ndimage.maximum(step, labels, every)))
    return found


def _rdf(fields: Fields, box: float) -> object:
    from MDAnalysis.lib.distances import self_capped_distance

    counts = np.zeros(100)
    for step in fields["position"]:
        sides = np.array([box] * 3 + [90.0] * 3, np.float32)
        _, apart = self_capped_distance(step.astype(np.float32), 2.5, box=sides)
        counts += np.histogram(apart, 100, (0, 2.5))[0]
    return counts


def _msd(fields: Fields) -> object:
    x = fields["position"]
    return [((x[lag:] - x[: len(x) - lag]) ** 2).sum(axis=2).mean() for lag in range(1, STEPS)]


def _pca(fields: Fields) -> object:
    from sklearn.decomposition import IncrementalPCA

    fit = IncrementalPCA(16)
    for first in range(0, len(fields["x"]), 256):
        fit.partial_fit(fields["x"][first : first + 256])
    return fit


def _dmd(fields: Fields) -> object:
    from pydmd import DMD

    return DMD(svd_rank=16).fit(fields["x"].T).modes


def _kmeans(fields: Fields) -> object:
    from sklearn.cluster import KMeans

    return KMeans(4, n_init=10, random_state=0).fit(fields["x"])


def _diffusion(fields: Fields) -> object:
    from sklearn.manifold import SpectralEmbedding

    gamma = 1 / fields["x"].var(axis=0).sum()
    return SpectralEmbedding(3, affinity="rbf", gamma=gamma, random_state=0).fit_transform(fields["x"])


def _scaler(fields: Fields) -> object:
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit(fields["x"])


def _sobol(fields: Fields) -> object:
    from SALib.analyze import sobol

    problem = {"num_vars": 3, "names": ["a", "b", "c"], "bounds": [[0, 1]] * 3}
    groups = fields["u"][0].reshape(-1, 5, fields["u"].shape[2])[:, [0, 2, 3, 4, 1]]  # it wants B behind the mixed ones
    return [
        sobol.analyze(problem, groups[:, :, cell].reshape(-1), calc_second_order=False, num_resamples=100, seed=0)
        for cell in range(16)
    ]
