# SPDX-License-Identifier: Apache-2.0
"""Every operator keeps the laws of a fold. A new operator is a line of CASES."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analytics.autocorrelation import Autocorrelation
from analytics.covariance import Covariance
from analytics.diffusion_map import DiffusionMap
from analytics.dmd import DMD
from analytics.events import Events
from analytics.exceedance import Exceedance
from analytics.extremes import Extremes
from analytics.histogram import Histogram
from analytics.kmeans import KMeans
from analytics.moments import Moments
from analytics.msd import Msd
from analytics.pca import PCA
from analytics.profile import Profile
from analytics.quantiles import Quantiles
from analytics.rdf import Rdf
from analytics.sklearn import Sklearn
from analytics.sobol import Sobol
from analytics.spectrum import Spectrum
from insitu.model import Variable
from insitu.operator import Operator
from insitu.registry import OPERATORS, load
from insitu.results.groups import create_group
from insitu.testing import check_operator, normal

FIELD = Variable("u", np.dtype("f8"), (5, 7), ("y", "x"), units="m s-1")
SCALAR = Variable("u", np.dtype("f8"), (), ())
ATOMS = Variable("u", np.dtype("f8"), None, ("atom", "axis"), row=(3,))
PLACES = Variable("place", np.dtype("f8"), None, ("atom", "axis"), row=(3,), units="m")
NUMBERS = Variable("id", np.dtype("i8"), None, ("atom",))
MOLECULE = Variable("u", np.dtype("f4"), (7, 3), ("atom", "axis"), units="nm")
TYPES = {"field": [FIELD]} | {t: [replace(FIELD, dtype=np.dtype(t))] for t in ("f4", "i8")}
ALL = {**TYPES, "scalar": [SCALAR], "atoms": [ATOMS]}
WIDE = {name: inputs for name, inputs in ALL.items() if name != "f4"}  # kernels that take seconds to compile
FIELDS = {"field": [FIELD]}
SINGLE = {t: TYPES[t] for t in ("f4", "i8")}  # a map from noise to noise is too sensitive for means of 1e8
PLACED = {"placed": [ATOMS, PLACES]}

SCALER: dict[str, Any] = {"estimator": "sklearn.preprocessing.StandardScaler", "attributes": "mean_"}

OVER: tuple[Any, ...] = ("step", "space", ["step", "space"])
WITH_SPACE = OVER[1:]
#: An operator for each way to reduce, and the inputs that it is tried with.
CASES: list[tuple[Callable[[Any], Operator], tuple[Any, ...], dict[str, list[Variable]]]] = [
    (lambda over: Moments(of="u", over=over, orders=4), OVER, ALL),
    (lambda over: Moments(of="u", over=over, orders=4, nan="skip"), OVER, FIELDS),
    (lambda over: Moments(of="u", over=over, orders=0), OVER, FIELDS),
    (lambda over: Moments(of="u", over=over, orders=3, extremes=False), WITH_SPACE, FIELDS),
    (lambda over: Msd(of="u", id="id", over=over, window=20), OVER[2:], {"numbered": [ATOMS, NUMBERS]}),
    (
        lambda over: Msd(of="u", id="id", over=over, window=20, box=(1, 2, 3), stride=3),
        OVER[2:],
        {"boxed": [ATOMS, NUMBERS]},
    ),
    (lambda over: Autocorrelation(of="u", over=over, lags=6), OVER[:1], FIELDS),
    (lambda over: Covariance(of="u", over=over), OVER, FIELDS),
    (lambda over: Events(of="u", over=over, threshold=0.5), ("space",), TYPES),
    (lambda over: Events(of="u", over=over, threshold=0, side="below", periodic=["y", "x"]), ("space",), FIELDS),
    (lambda over: DiffusionMap(of="u", over=over, components=2, sample=20), OVER[:1], ALL),
    (lambda over: DiffusionMap(of="u", over=over, components=2, sample=15, landmarks=9), OVER[:1], FIELDS),
    (
        lambda over: DiffusionMap(of="u", over=over, components=2, sample=15, landmarks=9, landmarks_by="farthest"),
        OVER[:1],
        FIELDS,
    ),
    (
        lambda over: DiffusionMap(of="u", over=over, components=2, sample=20, align=True),
        OVER[:1],
        {"molecule": [MOLECULE]},
    ),
    (lambda over: DMD(of="u", over=over, components=9, window=32), OVER[:1], SINGLE),
    (lambda over: Exceedance(of="u", over=over, threshold=0.5), OVER, ALL),
    (lambda over: Extremes(of="u", over=over, largest=4, smallest=1), WITH_SPACE, ALL),
    (lambda over: Histogram(of="u", over=over, bins=5, range=(-1.0, 1.5)), OVER, ALL),
    (lambda over: Histogram(of="u", over=over, bins=16, range="auto"), WITH_SPACE, WIDE),
    (lambda over: KMeans(of="u", over=over, clusters=3), OVER, ALL),
    (lambda over: KMeans(of="u", over=over, clusters=2, sample=9), OVER, FIELDS),
    (lambda over: PCA(of="u", over=over, components=16, window=32), OVER[:1], ALL),
    (lambda over: PCA(of="u", over=over, components=9, method="qr", energy=0.9, forgetting=0.8), OVER[:1], FIELDS),
    (lambda over: Profile(of="u", over=over, along="y"), WITH_SPACE, TYPES),
    (lambda over: Profile(of="u", over=over, along="x", nan="skip"), WITH_SPACE, FIELDS),
    (lambda over: Profile(of="u", over=over, along="place", axis=1, range=(-1, 2), bins=4), WITH_SPACE, PLACED),
    (lambda over: Profile(of="u", over=over, along="u", axis="z", range=(-1, 2), bins=4), WITH_SPACE, PLACED),
    (
        lambda over: Profile(of="u", over=over, along="place", axis=0, range=(0, 1), bins=3, periodic=True, nan="skip"),
        WITH_SPACE,
        PLACED,
    ),
    (lambda over: Quantiles(of="u", over=over, method="histogram", bins=16, range="auto"), OVER, WIDE),
    (lambda over: Quantiles(of="u", over=over, method="histogram", bins=5, range=(-1, 1.5), nan="skip"), OVER, FIELDS),
    (lambda over: Quantiles(of="u", over=over, method="kll", k=2000), WITH_SPACE, ALL),  # exact up to 2,000 values
    (lambda over: Rdf(of="u", over=over, box=(3, 4, 5), cutoff=1.5, bins=7), ("space",), {"atoms": [ATOMS]}),
    (lambda over: Rdf(of="u", over=over, box=(3, 4, 5), cutoff=1.5, bins=7, window=20), OVER[2:], {"atoms": [ATOMS]}),
    (lambda over: Sklearn(of="u", over=over, **SCALER), OVER, {**FIELDS, "scalar": [SCALAR], "atoms": [ATOMS]}),
    (lambda over: Sklearn(of="u", over=over, apply="transform", **SCALER), OVER[:1], FIELDS),
    (lambda over: Spectrum(of="u", over=over, segment=6), OVER[:1], {**FIELDS, "scalar": [SCALAR]}),
    (lambda over: Spectrum(of="u", over=over, along="x"), WITH_SPACE, TYPES),
    (lambda over: Spectrum(of="u", over=over, along="x", periodic=True, nan="skip"), WITH_SPACE, FIELDS),
]

MEMBERS = Variable("u", np.dtype("f8"), (8, 3, 2), ("member", "y", "x"), units="m")
#: Those that reduce over members, and get the fields of each.
OF_MEMBERS: list[Operator] = [
    each
    for over in ("member", ["member", "step"])
    for each in (
        Moments(of="u", over=over, orders=4, nan="skip"),
        Covariance(of="u", over=over),
        Histogram(of="u", over=over, bins=5, range=(-1.0, 1.5)),
        Quantiles(of="u", over=over, method="histogram", bins=16, range="auto"),
    )
] + [Sobol(of="u", parameters=1), Sobol(of="u", parameters=2)]

#: Operators of particles, which refuse one that is nowhere.
PLACED_ONLY = {Msd, Rdf}

TRIED = [
    pytest.param(make(over), inputs, id=f"{make(over)!r} with {name}")
    for make, ways, several in CASES
    for over in ways
    for name, inputs in several.items()
    if (over, name) != ("step", "atoms")
]


def numbered(variable, shape, rng):
    """Return normal values, and different numbers for the rows that a step has."""
    return rng.permutation(shape[0]) if variable.name == "id" else normal(variable, shape, rng)


@pytest.mark.parametrize(("operator", "inputs"), TRIED)
def test_laws(operator, inputs):
    check_operator(operator, inputs, values=numbered)


@pytest.mark.parametrize("operator", OF_MEMBERS, ids=repr)
def test_laws_over_members(operator):
    check_operator(operator, [MEMBERS])


@pytest.mark.parametrize("operator", OF_MEMBERS, ids=repr)
def test_results_over_members_can_be_stored(operator, tmp_path):
    create_group(tmp_path, "results", operator, {"u": MEMBERS}, {})


@pytest.mark.parametrize(("operator", "inputs"), TRIED)
def test_results_can_be_stored(operator, inputs, tmp_path):
    create_group(tmp_path, "results", operator, {each.name: each for each in inputs}, {})


@pytest.mark.parametrize(
    "operator",
    [
        each
        for make, ways, _ in CASES
        for over in ways
        if type(each := make(over)) not in PLACED_ONLY and not getattr(each, "align", False)
    ],
    ids=repr,
)
def test_laws_hold_with_nan(operator):
    def with_nan(variable, shape, rng):
        return np.where(rng.random(shape) < 0.2, np.nan, rng.normal(size=shape))

    check_operator(
        operator, [ATOMS, PLACES] if getattr(operator, "axis", None) is not None else [FIELD], values=with_nan
    )


def test_every_registered_operator_is_tried():
    tried = {type(make(ways[0])) for make, ways, _ in CASES} | {type(each) for each in OF_MEMBERS}
    assert {load(name) for name in OPERATORS} <= tried
