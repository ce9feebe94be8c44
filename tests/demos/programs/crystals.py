# SPDX-License-Identifier: Apache-2.0
"""Make crystals of the demo and leave them in crystals.npz: python crystals.py FOLDER_OF_DEMOS."""

import importlib
import sys

import numpy as np


def main(demos: str) -> None:
    sys.path.insert(0, demos)
    demo = importlib.import_module("crystal_defects")
    lmp, found = demo.quiet(), {}
    for kind, seeds in (("perfect", 1), ("twin", 1), ("dislocations", 3)):
        for seed in range(seeds):
            found[f"{kind}_{seed}"] = demo.crystal(lmp, kind, np.random.default_rng(seed), relaxed=False)
    found["relaxed"] = demo.crystal(lmp, "dislocations", np.random.default_rng(1))
    seen = [demo.seen(lmp, np.random.default_rng([1, k])) for k in range(12)]
    found["kinds"] = np.array([kind for kind, _ in seen])
    found["patterns"] = np.stack([pattern for _, pattern in seen])
    found["again"] = demo.seen(lmp, np.random.default_rng([1, 11]))[1]
    np.savez("crystals.npz", **found)
    lmp.close()


if __name__ == "__main__":
    main(sys.argv[1])
