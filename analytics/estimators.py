# SPDX-License-Identifier: Apache-2.0
"""Estimators of other libraries, by the dotted names that a configuration has for them."""

import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any


@functools.cache
def class_of(estimator: str, package: str, extra: str, example: str) -> Any:
    """Return the class that a dotted name means.

    Raises `ValueError` with a sentence: `package` is what the `extra` installs, and `example` a name that would do.
    """
    module, _, name = estimator.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        cure = f"; pip install 'insitu[{extra}]'" if missing else f", such as {example} is one"
        raise ValueError(f"{estimator} cannot be imported: {error or 'it has no module'}{cure}") from error
    except AttributeError as error:
        raise ValueError(f"{module} has no class {name}") from error
    if not isinstance(kind, type):
        raise ValueError(f"{estimator} is no class, such as {example} is one")
    return kind


def made(kind: Any, options: Mapping[str, Any], seed: int) -> Any:
    """Return an estimator of a class; what draws is given the `seed` where the options do not say otherwise.

    An option that is itself an object is given as ``{estimator: river.optim.SGD, options: {lr: 0.05}}``.
    """
    given = {key: _option(value, seed) for key, value in options.items()}
    known = inspect.signature(kind).parameters
    for name in ("random_state", "seed"):
        if name in known:
            given.setdefault(name, seed)
    return kind(**given)


def _option(value: Any, seed: int) -> Any:
    if not (isinstance(value, Mapping) and "estimator" in value and value.keys() <= {"estimator", "options"}):
        return value
    name = str(value["estimator"])
    package = name.partition(".")[0]
    return made(class_of(name, package, package, name), value.get("options", {}), seed)
