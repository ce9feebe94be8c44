# SPDX-License-Identifier: Apache-2.0
"""Principal components of a stream of samples, on one thread: samples/s, and how far off the modes are.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.pca [--rounds 5]

All contenders take the same float32 samples in the same batches. The error is the largest principal angle between the
16 modes found and those of a full singular value decomposition in float64. The samples have a mean, and variances that
fall slowly (as k^-2), which is where cutting off hurts. Time is the thread's own.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.decomposition import IncrementalPCA

from analytics.factors import Method
from analytics.pca import PCA
from benchmarks.common import report, rounds
from insitu.model import Variable
from insitu.operator import Batch
from insitu.testing import batch

FEATURES, COMPONENTS, RANK = 4096, 16, 200


def made(samples: int, size: int) -> list[Batch]:
    rng = np.random.default_rng(0)
    patterns = np.linalg.qr(rng.normal(size=(FEATURES, RANK)))[0].T / np.arange(1, RANK + 1)[:, np.newaxis]
    x = Variable("x", np.dtype("f4"), (FEATURES,), ("feature",))
    mean = rng.normal(size=FEATURES)
    batches = []
    for first in range(0, samples, size):
        values = rng.normal(size=(size, RANK)) @ patterns + mean + 1e-4 * rng.normal(size=(size, FEATURES))
        batches.append(batch([x], {"x": values}, first=first))
    return batches


def ours(method: Method, batches: list[Batch]) -> Callable[[], np.ndarray]:
    operator = PCA(of="x", components=COMPONENTS, method=method)
    state = operator.init()
    for one in batches:
        state = operator.update(state, one)
    return lambda: operator.finalize(state)["modes"]


def theirs(batches: list[np.ndarray]) -> Callable[[], np.ndarray]:
    fit = IncrementalPCA(COMPONENTS)
    for one in batches:
        fit.partial_fit(one)
    return lambda: np.asarray(fit.components_)


def degrees(modes: np.ndarray, exact: np.ndarray) -> float:
    q = np.linalg.qr(modes.T.astype(float))[0]
    return float(np.degrees(np.arcsin(min(1.0, float(np.linalg.norm(exact - (exact @ q) @ q.T, 2))))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=5120)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "pca.json")
    options = parser.parse_args()
    batches = made(options.samples, options.batch)
    arrays = [np.stack(one["x"]) for one in batches]
    whole = np.concatenate(arrays).astype(float)
    squares = (whole - whole.mean(axis=0)).T @ (whole - whole.mean(axis=0))
    exact = np.linalg.eigh(squares)[1][:, -COMPONENTS:].T
    errors: dict[str, float] = {}

    def timed(name: str, fold: Callable[[], Callable[[], np.ndarray]]) -> float:
        begin = time.thread_time()
        modes = fold()
        took = time.thread_time() - begin
        if name not in errors:
            errors[name] = degrees(modes(), exact)
        return float(options.samples / took)

    contenders = {
        "scikit-learn IncrementalPCA": partial(theirs, arrays),
        "pca": partial(ours, "gram", batches),
        "pca, method: qr": partial(ours, "qr", batches),
    }
    found = rounds({name: partial(timed, name, fold) for name, fold in contenders.items()}, options.rounds)
    base = "scikit-learn IncrementalPCA"
    table: list[dict[str, object]] = [
        {
            "contender": name, "samples/s": rate, "of scikit-learn": rate / found[base],
            "angle_degrees": errors[name], "angle of scikit-learn": errors[name] / errors[base],
        }
        for name, rate in found.items()
    ]  # fmt: skip
    report(f"{FEATURES} float32 features, {COMPONENTS} components, batches of {options.batch}", table, options.json)


if __name__ == "__main__":
    main()
