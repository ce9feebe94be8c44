# SPDX-License-Identifier: Apache-2.0
"""Distances of molecules after the best shift and rotation of one onto the other, from particles at several places.

What superposing needs of some particles are 3 by 3 products of two molecules' deviations from their means. Those of
several places add up, like covariances; so no place is told where the others' particles are. A dict of these, for n
steps and m landmarks among them:

=============  =======================================================================================================
``particles``  how many
``means``      float64 (n, 3)
``norms``      float64 (n,): sums of squares of deviations; NaN of a step that is not finite
``products``   float64 (n, m, 3, 3)
=============  =======================================================================================================
"""

import numpy as np

from analytics.sampling import Reals, require_squares
from insitu.model import Array
from insitu.operator import State


def products_of(positions: Reals, landmarks: Array) -> State:
    """Return what superposing needs of some particles, (steps, particles, 3): products of deviations from the mean."""
    n, particles, _ = positions.shape
    finite = np.asarray(np.isfinite(positions).all(axis=(1, 2)))
    positions = np.where(finite[:, np.newaxis, np.newaxis], positions, 0.0)
    means = positions.mean(axis=1) if particles else np.zeros((n, 3))
    apart = np.ascontiguousarray((positions - means[:, np.newaxis]).transpose(0, 2, 1))
    require_squares(apart)
    flat = apart.reshape(3 * n, particles)
    products = (flat @ apart[landmarks].reshape(3 * len(landmarks), particles).T).reshape(n, 3, len(landmarks), 3)
    norms = np.where(finite, np.einsum("nip,nip->n", apart, apart), np.nan)
    return {"particles": particles, "means": means, "norms": norms, "products": products.transpose(0, 2, 1, 3).copy()}


def joined(a: State, b: State, landmarks: Array) -> State:
    """Return the products of the particles of both."""
    n = a["particles"] + b["particles"]
    weight, between = a["particles"] * b["particles"] / max(1, n), b["means"] - a["means"]
    across = between[:, np.newaxis, :, np.newaxis] * between[landmarks][np.newaxis, :, np.newaxis, :]
    return {
        "particles": n,
        "means": a["means"] + between * (b["particles"] / max(1, n)),
        "norms": a["norms"] + b["norms"] + weight * (between**2).sum(axis=1),
        "products": a["products"] + b["products"] + weight * across,
    }


def squared_rmsd(summary: State, landmarks: Array) -> Reals:
    """Return the squared RMSD of all steps from the landmarks after superposing; NaN of steps that are not finite."""
    norms, products = summary["norms"], summary["products"]
    lengths = np.linalg.svd(products, compute_uv=False)
    lengths[..., 2] *= np.sign(np.linalg.det(products))  # rotations only, no mirror images
    found = norms[:, np.newaxis] + norms[landmarks] - 2 * lengths.sum(axis=-1)
    found = np.maximum(found, 0.0) / max(1, summary["particles"])
    found[landmarks, np.arange(len(landmarks))] *= 0.0
    return np.asarray(found)
