# SPDX-License-Identifier: Apache-2.0
"""A rank's side of steering where nobody speaks to it any more."""

import logging
import time

import pytest

from insitu.client import steering as module
from insitu.client.steering import Steered
from insitu.wire.messages import Message, Propose, Standing, SteeringTerms


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
