# SPDX-License-Identifier: Apache-2.0
"""Draw the pictures of operators.md: ``python docs/pictures.py [NAME ...]``, into docs/pictures/.

Each is what one operator makes of a minute of data, computed here by the operators themselves, without a run: fields
of the Gray-Scott demo, particles that walk at random, the pulses of the ensemble demo.
"""

import io
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from insitu.model import Array, Variable
from insitu.registry import load
from insitu.testing import batch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "demos"))

Results = dict[str, Array]
STEPS, SIZE = 80, 64


def main() -> None:
    mpl.use("agg")
    mpl.rcParams.update({"font.size": 7, "axes.titlesize": 7, "image.origin": "lower", "image.cmap": "viridis"})
    folder = HERE / "pictures"
    folder.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        figure = Figure(figsize=(4.4, 1.9), layout="constrained")
        PICTURES[name](figure)
        with io.BytesIO() as drawn:
            figure.savefig(drawn, dpi=90)
            # 48 colours are enough for these, and a third of the bytes.
            Image.open(drawn).convert("RGB").quantize(48).save(folder / f"{name}.png", optimize=True)


def folded(use: str, inputs: Sequence[Variable], fields: dict[str, Any], **keys: Any) -> Results:
    """Fold all steps and return the results."""
    operator = load(use)(**keys)
    operator.warm_up()
    steps = operator.seen_batch(batch(inputs, fields))
    return operator.finalize(operator.update(operator.init(), steps))


@cache
def gray_scott() -> tuple[Array, Array]:
    """Return u and v of some steps, when patterns are there."""
    from gray_scott import advance, initial_fields, with_halo

    u, v = (with_halo(field) for field in initial_fields(SIZE))
    kept = []
    for n in range(40 + STEPS):
        for _ in range(50):
            advance(u, v, 0.018)
        if n >= 40:
            kept.append((u[1:-1, 1:-1].copy(), v[1:-1, 1:-1].copy()))
    made = np.array(kept)
    return made[:, 0], made[:, 1]


def of_field(use: str, **keys: Any) -> Results:
    u, v = gray_scott()
    inputs = [Variable(name, np.dtype("f8"), (SIZE, SIZE), ("y", "x"), units="1") for name in "uv"]
    return folded(use, inputs, {"u": u, "v": v}, **keys)


def image(axes: Axes, values: Array, title: str, **how: Any) -> None:
    axes.figure.colorbar(axes.imshow(values, **how), ax=axes, shrink=0.8)
    axes.set(title=title, xticks=[], yticks=[])


def two(figure: Figure) -> tuple[Axes, Axes]:
    first, second = figure.subplots(1, 2)
    return first, second


def moments(figure: Figure) -> None:
    found, (first, second) = of_field("moments", of="u", over="step"), two(figure)
    image(first, found["mean"], "mean of u over steps")
    image(second, found["variance"], "variance")


def covariance(figure: Figure) -> None:
    found, (first, second) = of_field("covariance", of=["u", "v"], over="step"), two(figure)
    image(first, found["covariance"], "covariance of u and v")
    image(second, found["correlation"], "correlation")


def histogram(figure: Figure) -> None:
    found = of_field("histogram", of="v", over=["step", "space"], bins=40, range=(0, 0.5))
    axes = figure.subplots()
    axes.stairs(found["count"], found["edges"], fill=True)
    axes.set(yscale="log", xlabel="v", ylabel="values", title="all cells and steps")


def quantiles(figure: Figure) -> None:
    found = of_field("quantiles", of="v", over="step", method="histogram", bins=64, range="auto", levels=[0.05, 0.95])
    first, second = two(figure)
    image(first, found["quantile"][0], "5 % of the steps have less v")
    image(second, found["quantile"][1], "5 % have more")


def exceedance(figure: Figure) -> None:
    found, (first, second) = of_field("exceedance", of="v", over="step", threshold=0.2), two(figure)
    image(first, found["probability"], "share of steps with v > 0.2")
    image(second, found["longest"], "steps in a row")


def extremes(figure: Figure) -> None:
    found = of_field("extremes", of="v", over=["step", "space"], largest=8)
    axes = figure.subplots()
    last = int(found["largest_index"][0])
    image(axes, gray_scott()[1][last], f"the 8 largest v; the field in step {last}")
    y, x = found["largest_place"].T
    axes.plot(x, y, "o", color="red", fillstyle="none")


def autocorrelation(figure: Figure) -> None:
    found, (first, second) = of_field("autocorrelation", of="u", over="step", lags=30), two(figure)
    first.plot(found["autocorrelation"].reshape(31, -1)[:, ::97], color="tab:blue", alpha=0.3, linewidth=0.6)
    first.set(xlabel="lag, steps", title="autocorrelation of some cells")
    image(second, found["integrated_time"], "integrated time, steps")


def spectrum(figure: Figure) -> None:
    found = of_field("spectrum", of="u", over=["step", "space"], along="x", periodic=True)
    axes = figure.subplots()
    axes.semilogy(found["frequencies"][1:], found["density"][1:])
    axes.set(xlabel="cycles per cell", ylabel="density", title="lengths of the patterns along x")


def events(figure: Figure) -> None:
    v = gray_scott()[1][-1:]
    variable = Variable("v", np.dtype("f8"), (SIZE, SIZE), ("y", "x"))
    found = folded("events", [variable], {"v": v}, of="v", over="space", threshold=0.2, largest=40, periodic=["y", "x"])
    axes = figure.subplots()
    image(axes, v[0], f"{int(found['number'])} regions with v > 0.2, and their centroids")
    y, x = found["centroid"].T
    axes.plot(x, y, "+", color="red")


def profile(figure: Figure) -> None:
    found = of_field("profile", of="v", along="y", over=["step", "space"])
    axes = figure.subplots()
    spread = np.sqrt(found["variance"])
    axes.fill_between(np.arange(SIZE), found["mean"] - spread, found["mean"] + spread, alpha=0.3)
    axes.plot(found["mean"])
    axes.set(xlabel="y, cells", ylabel="v", title="mean along y, and one standard deviation")


@cache
def walkers() -> Array:
    """Return positions of particles that walk at random in a box of 10, and keep a distance of 1."""
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(*[np.arange(6) * 10 / 6] * 3), axis=-1).reshape(-1, 3)
    kept = []
    for n in range(1200):
        new = at + rng.normal(scale=0.08, size=at.shape)
        apart = new[:, np.newaxis] - at
        near = ((apart - 10 * np.rint(apart / 10)) ** 2).sum(axis=-1) < 1
        np.fill_diagonal(near, False)
        moved = ~near.any(axis=1) & (rng.random(len(at)) < 0.3)
        at = np.where(moved[:, np.newaxis], new, at)
        if n >= 400 and n % 10 == 0:
            kept.append(at % 10)
    return np.array(kept)


def of_particles(use: str, **keys: Any) -> Results:
    atoms = Variable("position", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
    number = Variable("id", np.dtype("i8"), None, ("atom",))
    ids = [np.arange(len(step)) for step in walkers()]
    return folded(use, [atoms, number], {"position": walkers(), "id": ids}, of="position", box=(10, 10, 10), **keys)


def rdf(figure: Figure) -> None:
    found = of_particles("rdf", over=["step", "space"], window=len(walkers()), cutoff=5, bins=50)
    axes = figure.subplots()
    axes.stairs(found["g"], found["edges"])
    axes.set(xlabel="distance", ylabel="g", title="hard spheres of diameter 1")


def msd(figure: Figure) -> None:
    found = of_particles("msd", id="id", over=["step", "space"], window=len(walkers()))
    axes = figure.subplots()
    axes.plot(found["elapsed"], found["msd"])
    axes.set(xlabel="time", ylabel="msd", title="the slope is six times the diffusion coefficient")


def pca(figure: Figure) -> None:
    found, (first, second) = of_field("pca", of=["u", "v"], components=4), two(figure)
    for k, axes in enumerate((first, second)):
        title = f"mode {k + 1} of u: {100 * found['energy'][k]:.0f} %"
        image(axes, found["u_modes"][k], title, cmap="RdBu_r")


def dmd(figure: Figure) -> None:
    time, x = np.arange(60)[:, np.newaxis], np.arange(100)
    fields = np.exp(-0.01 * time) * np.sin(0.1 * x - 0.3 * time) + np.exp(0.005 * time) * np.sin(0.3 * x - 0.9 * time)
    wave = Variable("u", np.dtype("f8"), (100,), ("x",))
    found, (first, second) = folded("dmd", [wave], {"u": fields}, of="u", components=4), two(figure)
    first.imshow(fields, aspect="auto")
    first.set(title="two waves", xlabel="x", ylabel="step")
    second.axhline(0, color="grey", linewidth=0.5)
    second.plot(found["frequency"], found["growth"], "o")
    second.set(title="the modes", xlabel="frequency", ylabel="growth")


def kmeans(figure: Figure) -> None:
    found, axes = of_field("kmeans", of="u", clusters=4, sample=STEPS), figure.subplots(1, 5)
    for k in range(4):
        axes[k].imshow(found["centroids"][k])
        axes[k].set(title=f"state {k}", xticks=[], yticks=[])
    axes[4].plot(found["label"], drawstyle="steps", linewidth=0.8)
    axes[4].set(title="state", xlabel="step")


def sklearn(figure: Figure) -> None:
    found = of_field(
        "sklearn",
        of=["u", "v"],
        over=["step", "space"],
        sample=4000,
        estimator="sklearn.cluster.MiniBatchKMeans",
        options={"n_clusters": 3, "n_init": 3},
        attributes="cluster_centers_",
    )
    axes = figure.subplots()
    u, v = (field.reshape(-1)[::101] for field in gray_scott())
    axes.plot(u, v, ".", markersize=1, color="lightgrey")
    axes.plot(*found["cluster_centers"].T, "o", color="red")
    axes.set(xlabel="u", ylabel="v", title="MiniBatchKMeans: kinds of cells")


def diffusion_map(figure: Figure) -> None:
    turn = np.random.default_rng(0).uniform(0, 1, 400)
    steps = ((1 + 2 * turn) * [np.cos(8 * turn), np.sin(8 * turn)]).T
    place = Variable("u", np.dtype("f8"), (2,), ("axis",))
    keys = {"of": "u", "components": 1, "sample": 400, "width": 0.3}
    found, (first, second) = folded("diffusion_map", [place], {"u": steps}, **keys), two(figure)
    colour = found["coordinates"][:, 0]
    first.scatter(*steps.T, c=colour, s=3)
    first.set(title="steps on a curve, by coordinate 1", aspect="equal")
    second.scatter(turn, colour, c=colour, s=3)
    second.set(xlabel="length along the curve", title="coordinate 1")


def sobol(figure: Figure) -> None:
    from ensemble import CELLS, parameters, pulses

    members, x = parameters(300), (np.arange(CELLS) + 0.5) / CELLS
    u = Variable("u", np.dtype("f8"), (len(members), CELLS), ("member", "x"))
    rows = [
        folded("sobol", [u], {"u": [pulses(members, x, n / 40)]}, of="u", parameters=3, floor=1e-6)["total"]
        for n in range(40)
    ]
    for k, (axes, name) in enumerate(zip(figure.subplots(1, 3), ("speed", "diffusivity", "width"), strict=True)):
        axes.imshow(np.array(rows)[:, k], aspect="auto", vmin=0, vmax=1)
        axes.set(title=f"total index: {name}", xlabel="x", ylabel="step")


#: The pictures by the names of the operators.
PICTURES: dict[str, Callable[[Figure], None]] = {
    each.__name__: each
    for each in (
        autocorrelation,
        covariance,
        diffusion_map,
        dmd,
        events,
        exceedance,
        extremes,
        histogram,
        kmeans,
        moments,
        msd,
        pca,
        profile,
        quantiles,
        rdf,
        sklearn,
        sobol,
        spectrum,
    )
}

if __name__ == "__main__":
    main()
