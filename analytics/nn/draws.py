# SPDX-License-Identifier: Apache-2.0
"""Random numbers that are a function of where they are used, so that they need no state and come again.

A counter-based generator (Philox: J. Salmon et al., SC 2011) is keyed by the seed and the purpose, and counts (batch,
slot). What a batch draws does not depend on what was drawn before.
"""

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]

#: What numbers are drawn for: the second half of the key.
BATCHES, EVICTIONS, WEIGHTS, HELD_OUT, ENSEMBLE = range(5)


class Draws:
    """Numbers for one purpose.

    >>> Draws(seed=7, purpose=BATCHES).uniforms(batch=3, number=2).tolist()
    [0.439, 0.166]
    >>> Draws(seed=7, purpose=BATCHES).uniforms(batch=3, number=3).tolist()
    [0.439, 0.166, 0.982]
    """

    def __init__(self, seed: int, purpose: int) -> None:
        self._generator = np.random.Philox(key=np.array([seed, purpose], np.uint64))
        self._state = self._generator.state

    def words(self, batch: int, number: int) -> npt.NDArray[np.uint64]:
        """Return the first `number` 64-bit words of a batch."""
        # Making a generator costs 20 times as much as moving one to another place.
        self._state["state"]["counter"][:] = (0, batch, 0, 0)
        self._state["buffer_pos"] = 4
        self._generator.state = self._state
        words: npt.NDArray[np.uint64] = self._generator.random_raw(number)
        return words

    def uniforms(self, batch: int, number: int) -> npt.NDArray[np.float64]:
        """Return the first `number` slots of a batch, uniform over [0, 1) in steps of 2^-53."""
        return np.asarray((self.words(batch, number) >> np.uint64(11)) * 2.0**-53, np.float64)

    def distinct(self, batch: int, number: int, among: int) -> Positions:
        """Return `number` different positions of ``range(among)``, in the order in which they were drawn.

        The first steps of a shuffle (Fisher and Yates), of which only the moved entries are kept: costs O(number).
        """
        moved: dict[int, int] = {}
        found = np.empty(number, np.int64)
        for k, u in enumerate(self.uniforms(batch, number).tolist()):
            at = k + int(u * (among - k))
            found[k] = moved.get(at, at)
            moved[at] = moved.get(k, k)
        return found
