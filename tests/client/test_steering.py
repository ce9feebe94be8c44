# SPDX-License-Identifier: Apache-2.0
"""A rank's side of steering where nobody speaks to it any more."""

import logging
import time

import pytest

from insitu.client import steering as module
from insitu.client.steering import Steered
from insitu.steering.parameters import ParameterSpec
from insitu.wire.messages import Answer, Decide, Message, Propose, Standing, SteeringTerms


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
