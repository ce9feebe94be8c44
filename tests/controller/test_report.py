# SPDX-License-Identifier: Apache-2.0
"""The report counts every step, says why each that is missing is, and who waited for whom."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from insitu.controller.admission import Peer
from insitu.controller.declarations import Declarations
from insitu.controller.report import Outcome, build_report, uncounted
from insitu.controller.tracker import Tracker
from insitu.model import Variable
from insitu.steering.parameters import ParameterSpec
from insitu.wire.messages import BlockSpec, Closed, ClosedStep, Layout
from insitu.wire.session import Link, Session, Side
from insitu.wire.steering import Declare
from tests.config.yaml_files import GOOD, load

U = Variable("u", np.dtype("f8"), (8,), ("x",))
V = Variable("v", np.dtype("f8"), (8,), ("x",))


def tracked() -> Tracker:
    """Two ranks of which one has not all of `v`; of six steps one was dropped, and one had not come from rank 1."""
    tracker = Tracker(0, [(0,), (0,)])
    for rank, rows in enumerate((4, 3)):
        blocks = (BlockSpec(U, (4 * rank,), (4,)), BlockSpec(V, (4 * rank,), (rows,)))
        tracker.layout(rank, Layout(0, blocks))
    tracker.offer(U)
    tracker.offer(V)
    steps = tuple(ClosedStep(n, n, 0.0, 0, 100, ()) for n in range(5) if n != 2)
    tracker.closed(0, Closed(0, (((0, 0), (1, 0)),), steps))
    tracker.drop(2, "no room")
    tracker.rank_ended(0, 6)
    tracker.rank_ended(1, 5)
    tracker.decide()
    return tracker


def peer(number: int, link: Link, **counters: float) -> Peer:
    return Peer(b"", Session(link, Side.LISTENS), f"peer {number}", number, f"n{number}", 1, counters=counters)


def declared() -> Declarations:
    known = Declarations(lambda source, event: None)
    feed = ParameterSpec.of("feed", 0.035, minimum=0.0, units="1/s")
    known.add(0, Declare("parameter", "feed", feed.to_plain(), (), ()))
    known.set({"feed": 0.05})
    return known


def report(
    folder: Path,
    tracker: Tracker | None,
    ranks: int = 0,
    published: int = 6,
    gone: tuple[int, ...] = (),
    **failures: dict[str, str],
) -> dict[str, Any]:
    """`published`: the steps of rank 0; others have less."""
    waits = [(1.5, 0.25), (0.5, 0.0), (0.0, 3.0)]
    service: Any = SimpleNamespace(
        tracker=tracker,
        failed=failures.get("service", {}),
        encrypted=False,
        refused_clients=3,
        ranks={
            k: peer(
                k,
                Link.RANK_CONTROLLER,
                steps=published - k,
                put_bytes=100,
                wait_staging_s=waits[k][0],
                wait_network_s=waits[k][1],
            )
            for k in range(ranks)
        },
        gone=list(gone),
        nodes={0: peer(0, Link.NODE_CONTROLLER, folded_steps=4)},
        steering=SimpleNamespace(declared=declared(), counts={"applied": 2}),
    )
    sink: Any = SimpleNamespace(rows_of={"speed": 7}, failures=failures.get("sink", {}))
    outcome = Outcome("done", [], [], mistaken=False)
    built = build_report(load(folder, GOOD), outcome, service, sink, 12.34567, None)
    return dict(json.loads(json.dumps(built)))


def test_every_step_is_accounted_for(tmp_path: Path) -> None:
    built = report(tmp_path, tracked(), ranks=2)
    assert built["steps"] == {
        "produced": 6,
        "delivered": 4,
        "dropped": 2,
        "unaccounted": 0,
        "delivered_bytes": 400,
        "dropped_because": {"no room": 1, "rank 1 had ended before": 1},
    }
    missing = "1 of its 8 cells is missing beside those of ranks 0, 1"
    unneeded, nothing = "no operator folds it", dict.fromkeys(("produced_bytes", "selected_bytes", "sent_bytes"), 0)
    assert built["variables"] == {
        "u": {"delivered": 4, "left_out": 0, "because": [unneeded], "lossless_parts": 0, **nothing},
        "v": {"delivered": 0, "left_out": 4, "because": [missing], "lossless_parts": 0, **nothing},
    }


@pytest.mark.parametrize(
    ("published", "gone", "produced", "unaccounted"),
    [(7, (), 7, 1), (5, (), 5, -1), (7, (1,), 7, 1), (5, (1,), 6, 0)],
    ids=["lost", "counted twice", "lost with a rank", "said before the rank was gone"],
)
def test_a_step_that_nobody_counted_shows(
    tmp_path: Path, published: int, gone: tuple[int, ...], produced: int, unaccounted: int
) -> None:
    """What was published is the ranks' own number, not the sum of what became of it."""
    built = report(tmp_path, tracked(), 2, published, gone)
    assert (built["steps"]["produced"], built["steps"]["unaccounted"]) == (produced, unaccounted)
    warning = uncounted(built)
    assert (warning is not None) == (unaccounted != 0)
    assert warning is None or "of which 4 were delivered and 2 dropped" in warning.text


@pytest.mark.parametrize("said", ["many", -3, 2.5, None])
def test_a_rank_that_says_nonsense_has_published_nothing(said: Any) -> None:
    assert peer(0, Link.RANK_CONTROLLER, **({} if said is None else {"steps": said})).published == 0


def test_a_run_in_which_nobody_took_part_has_a_report_too(tmp_path: Path) -> None:
    built = report(tmp_path, None)
    assert built["steps"]["produced"] == 0
    assert built["variables"] == {}
    assert built["ranks"] == {
        "number": 0,
        "put_bytes": 0,
        "states_sent_bytes": 0,
        "longest_fold_s": 0.0,
        "waited_for_staging_s": 0,
        "spilled_steps": 0,
        "spilled_bytes": 0,
        "most_on_disk_bytes": 0,
        "waited_for_network_s": 0,
        "longest_wait_s": 0,
    }
    assert built["first_step_s"] is None
    assert built["duration_s"] == 12.346


def test_waits_are_summed_and_the_longest_is_one_ranks(tmp_path: Path) -> None:
    ranks = report(tmp_path, tracked(), ranks=3)["ranks"]
    assert (ranks["number"], ranks["put_bytes"]) == (3, 300)
    assert (ranks["waited_for_staging_s"], ranks["waited_for_network_s"], ranks["longest_wait_s"]) == (2.0, 3.25, 3.0)


@pytest.mark.parametrize("where", ["service", "sink"])
def test_an_operator_that_was_stopped_or_not_stored_says_why(tmp_path: Path, where: str) -> None:
    assert report(tmp_path, None)["operators"] == {"speed": {"results": 7, "failed": ""}}
    built = report(tmp_path, None, **{where: {"speed": "its disk is full"}})
    assert built["operators"] == {"speed": {"results": 7, "failed": "its disk is full"}}


def test_nodes_parameters_and_versions_are_there(tmp_path: Path) -> None:
    built = report(tmp_path, None)
    assert built["staging"] == [{"node": 0, "host": "n0", "folded_steps": 4}]
    feed = {"value": 0.05, "default": 0.035, "minimum": 0.0, "maximum": None, "units": "1/s"}
    assert built["parameters"] == {"feed": feed}
    assert built["actions"] == {"applied": 2}
    assert built["network"] == {"encrypted": False, "refused_clients": 3}
    assert {"insitu", "python", "numpy", "distributed"} <= built["versions"].keys()


@pytest.mark.parametrize(
    ("status", "mistaken", "exit_status"), [("done", False, 0), ("failed", False, 1), ("failed", True, 2)]
)
def test_the_exit_status_says_whose_fault_it_is(status: str, mistaken: bool, exit_status: int) -> None:
    assert Outcome(status, [], [], mistaken).exit_status == exit_status
