# SPDX-License-Identifier: Apache-2.0
"""A rank's side of steering where nobody speaks to it any more, or seems not to."""

import logging
import time
from types import SimpleNamespace

import pytest

from insitu.client import steering as module
from insitu.client.steering import Steered
from insitu.steering.parameters import ParameterSpec
from insitu.wire.messages import Message
from insitu.wire.steering import Answer, Decide, Propose, Standing, SteeringTerms


class Line:
    """A link to a controller that says nothing."""

    def __init__(self) -> None:
        self.heard_at = time.monotonic()
        self.said: list[Message] = []

    def say(self, message: Message) -> None:
        self.said.append(message)


def test_a_pause_ends_when_the_controller_is_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.05)
    line = Line()
    steered = Steered(0, SteeringTerms("promise", 1.0, 3600.0, "stop", 0), line)
    steered.meet(0, 1.0, lambda wait_s: None)
    steered.hear(Propose(1, 0, True, "pause", {}))
    with caplog.at_level(logging.WARNING):
        steered.boundary(0, 0.0)
    assert "goes on after a pause: the controller has said nothing for 0.05 s" in caplog.text
    assert Standing(0, 0, 0.0) in line.said
    assert (steered.passed, steered.stopping) == (1, False)


def test_what_was_promised_in_a_pause_is_kept_though_the_pause_is_over_before_the_decision() -> None:
    line, begin = Line(), time.monotonic()
    steered = Steered(0, SteeringTerms("promise", 5.0, 0.05, "stop", 0), line)
    feed = steered.parameter(ParameterSpec.of("feed", 0.035))
    script = [(0.0, Propose(2, 0, False, "set", {"feed": 0.05})), (0.2, Decide(2, True))]

    def pump(wait_s: float) -> None:
        while script and time.monotonic() - begin >= script[0][0]:
            steered.hear(script.pop(0)[1])

    steered.meet(0, 1.0, pump)
    steered.hear(Propose(1, 0, True, "pause", {}))
    steered.boundary(0, 0.0)
    assert feed.value == 0.05
    words = [(each.round, each.word, each.passed) for each in line.said if isinstance(each, Answer)]
    assert words == [(1, "applied", 0), (2, "promise", 0), (2, "applied", 0)]
    assert (steered.passed, steered.stopping) == (1, False)


@pytest.mark.parametrize("kind", ["set", "pause"])
def test_a_rank_that_was_stopped_itself_does_not_take_that_for_silence(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A look in which an hour went by, as in a debugger or on a frozen machine; the word comes with the next ones."""
    line, clock = Line(), [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    line.heard_at = 0.0
    steered = Steered(0, SteeringTerms("promise", 1.0, 600.0, "stop", 0), line)
    feed = steered.parameter(ParameterSpec.of("feed", 0.035))
    words = [Decide(1, True)] if kind == "set" else [Propose(2, 0, False, "resume", {}), Decide(2, True)]
    script = [(3600.0, None), *((0.02, word) for word in words)]

    def pump(wait_s: float) -> None:
        seconds, message = script.pop(0)
        clock[0] += seconds
        if message is not None:
            line.heard_at = clock[0]
            steered.hear(message)

    steered.meet(0, 1.0, pump)
    steered.hear(Propose(1, 0, kind == "pause", kind, {"feed": 0.05} if kind == "set" else {}))
    steered.boundary(0, 0.0)
    assert script == [], "it has listened until the word came"
    assert not steered.stopping
    assert feed.value == (0.05 if kind == "set" else 0.035)
    said = [(each.word, each.waited_s) for each in line.said if isinstance(each, Answer)]
    assert said[-1] == ("applied", pytest.approx(0.27 if kind == "set" else 0.02, abs=1e-6))
