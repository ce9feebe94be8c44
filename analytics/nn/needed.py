# SPDX-License-Identifier: Apache-2.0
"""Whether this machine has what networks need, without importing any of it."""

import importlib.util


def fault(use: str) -> str | None:
    """Say what is not installed, with the cure."""
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        return f'{use} needs {" and ".join(missing)}, which {are} not installed; pip install "insitu[train]"'
    return None
