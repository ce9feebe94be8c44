# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: one YAML file, checked whole before anything starts.

`load` reads a file into a `Config`. The way of a mistake through the modules: `document` reads YAML and notes the line
of each key, `model` (with `values`) says what is right, `problems` turns pydantic's errors into sentences with the
`words` of the model's schema, and `loading` joins the three.
"""

from insitu.config.loading import build, load
from insitu.config.model import (
    Buffering,
    Config,
    Dashboard,
    Output,
    Rules,
    Simulation,
    Staging,
    config_hash,
)
from insitu.config.plugins import plugin_entry

__all__ = [
    "Buffering",
    "Config",
    "Dashboard",
    "Output",
    "Rules",
    "Simulation",
    "Staging",
    "build",
    "config_hash",
    "load",
    "plugin_entry",
]
