# SPDX-License-Identifier: Apache-2.0
"""Streaming in-situ analysis: statistics, learning and steering while a simulation runs.

A simulation needs one name of this package, `Client`; who looks at one from outside, `attach`; who steers it, `steer`;
who configures a run in Python, `Pipeline`. They are looked up when they are first used (PEP 562): so whoever imports
only `insitu.operator` or `insitu.model`, as every file in ``analytics/`` does, loads no ZeroMQ, and a simulation no
Dask.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from insitu.attaching import attach
    from insitu.building import Pipeline
    from insitu.client import Client
    from insitu.console import steer

__all__ = ["Client", "Pipeline", "__version__", "attach", "steer"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Client":
        from insitu.client import Client

        return Client
    if name == "Pipeline":
        from insitu.building import Pipeline

        return Pipeline
    if name == "attach":
        from insitu.attaching import attach

        return attach
    if name == "steer":
        from insitu.console import steer

        return steer
    raise AttributeError(f"module 'insitu' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
