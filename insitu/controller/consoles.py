# SPDX-License-Identifier: Apache-2.0
"""People and programs that look at a run and steer it from outside. All belongs to the controller's thread."""

from collections.abc import Callable
from functools import partial
from typing import Any

from insitu.controller.admission import Peer
from insitu.controller.followers import Followers
from insitu.controller.steering import Steering
from insitu.steering.actions import RULES, Action, Receipt, large, substituted
from insitu.steering.parameters import plain
from insitu.wire.messages import Message
from insitu.wire.steering import (
    ConsoleWelcome,
    Follow,
    Leave,
    Paused,
    Request,
    Scale,
    Scaled,
    Settled,
    Standing,
    Steerable,
)


class Consoles:
    """All consoles of a run. `send` reaches one of them, `scale` changes how many staging nodes there are."""

    def __init__(
        self,
        steering: Steering,
        followers: Followers,
        send: Callable[[Peer, Message], None],
        scale: Callable[[int], Scaled],
    ) -> None:
        self._scale = scale
        self._steering = steering
        self._followers = followers
        self._following: dict[str, dict[bytes, Peer]] = {}
        self._standing: Standing | None = None
        self._send = send
        self._peers: dict[bytes, Peer] = {}
        self._tokens: dict[int, tuple[Peer, int]] = {}
        self._told = -1
        steering.listeners.append(self._tell)

    def admit(self, peer: Peer, run: str) -> None:
        """A console takes part: tell it what can be steered."""
        self._send(peer, ConsoleWelcome(run))
        self._peers[peer.identity] = peer
        self._send(peer, self._steerable())
        self._send(peer, _paused(self._standing))

    def hear(self, peer: Peer, message: Message) -> None:
        """Take in what a console says."""
        match message:
            case Request(token, kind, values, by, why):
                handle = self._steering.ask(Action(kind, values, by=by or peer.name, why=why))
                handle.then(partial(self._answer, peer, token))
            case Follow(operators):
                for operator in operators:
                    self._following.setdefault(operator, {})[peer.identity] = peer
                    shown = self._followers.follow(operator)
                    if shown is not None:
                        self._send(peer, shown)
            case Scale(nodes):
                self._send(peer, self._scale(nodes))
            case Leave():
                self.lose(peer)

    def lose(self, peer: Peer) -> None:
        """A console has left, or is gone."""
        self._peers.pop(peer.identity, None)
        for peers in self._following.values():
            peers.pop(peer.identity, None)
        peer.ended = True

    def turn(self) -> None:
        """Tell all consoles what they do not know: what can be steered, where the ranks stand still, results."""
        declared = self._steering.declared
        if self._told != declared.version:
            self._told = declared.version
            for peer in list(self._peers.values()):
                self._send(peer, self._steerable())
        standing = self._steering.standing
        if standing != self._standing:
            self._standing = standing
            for peer in list(self._peers.values()):
                self._send(peer, _paused(standing))
        for shown in self._followers.take():
            for peer in list(self._following[shown.operator].values()):
                self._send(peer, shown)

    def _answer(self, peer: Peer, token: int, receipt: Receipt) -> None:
        self._send(peer, Settled(token, short(receipt)))

    def _tell(self, receipt: Receipt) -> None:
        for peer in list(self._peers.values()):
            self._send(peer, Settled(-1, short(receipt)))

    def _steerable(self) -> Steerable:
        declared = self._steering.declared
        actions = {
            name: {argument.name: argument.to_plain() for argument in arguments.values()}
            for name, arguments in declared.functions.items()
        }
        if switches := self._steering.switches:
            actions[RULES] = {name: spec.to_plain() for name, spec in switches.items()}
        values = {name: plain(value) for name, value in declared.values.items()}
        parameters = tuple(spec.to_plain() for spec in declared.parameters.values())
        return Steerable(declared.ready, parameters, actions, values)


def _paused(standing: Standing | None) -> Paused:
    return Paused(-1, 0, 0.0) if standing is None else Paused(standing.passed, standing.index, standing.time)


def short(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as plain data; of a field, which is too large to be told, its shape."""
    return substituted(receipt, {name: f"<array {value.shape}>" for name, value in large(receipt.action)}).to_plain()
