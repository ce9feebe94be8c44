# SPDX-License-Identifier: Apache-2.0
"""A controller without staging nodes: all of steering and nothing else, so that many of its faults can be tried.

It says on stdout what it tells ranks of actions and what it hears from them, a line each.
"""

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import Any

from insitu.controller import service as module
from insitu.controller.admission import Terms
from insitu.controller.record import ActionRecord, to_replay
from insitu.controller.service import Service
from insitu.wire.contact import Contact
from insitu.wire.messages import Event, Message
from insitu.wire.sockets import listen
from insitu.wire.steering import Answer, Decide, Propose, SteeringTerms


def main() -> None:
    options = parse_options()
    module.PING_S, module.LINGERS_S = 0.05, 0.2
    schedule = to_replay(options.actions)[0] if options.actions else []
    steering = SteeringTerms(options.agree, options.max_wait, options.max_pause, options.in_doubt, 0)
    with listen("tcp://127.0.0.1:*") as listener:
        record = ActionRecord(options.folder / "actions.jsonl")
        service = Service(
            listener,
            Terms("scene", options.ranks, 1 << 20, 5.0, "block", 1, "drop", 0, "", "tcp", (), steering),
            {},
            0,
            journal=journal,
            describe=lambda offered, whole: None,
            deliver=lambda done: None,
            release=lambda held: None,
            record=record,
            snapshot=lambda service: {},
            schedule=schedule,
        )
        trace(service)
        contact = Contact("scene", listener.address, os.getpid(), socket.gethostname(), str(options.folder))
        contact.write(options.folder / "contact.json")
        while options.stays or len(service.ranks) != service.size or not all(r.ended for r in service.ranks.values()):
            service.turn(0.05)
        service.close()
        record.close()


def journal(source: str, event: Event) -> None:
    print("event", event.kind, event.text, file=sys.stderr, flush=True)


def trace(service: Any) -> None:
    """Say what is told to ranks and heard from them of actions."""
    say, hear = service.steering._say, service.steering.hear

    def traced_say(rank: int, message: Message) -> None:
        if isinstance(message, Propose):
            print("propose", rank, message.round, message.at, flush=True)
        elif isinstance(message, Decide):
            print("decide", rank, message.round, message.apply, flush=True)
        say(rank, message)

    def traced_hear(rank: int, message: Any) -> None:
        if isinstance(message, Answer):
            print(message.word, rank, message.round, message.passed, flush=True)
        hear(rank, message)

    service.steering._say, service.steering.hear = traced_say, traced_hear


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--agree", default="promise")
    parser.add_argument("--max-wait", type=float, default=1.0)
    parser.add_argument("--max-pause", type=float, default=60.0)
    parser.add_argument("--in-doubt", default="stop")
    parser.add_argument("--actions", type=Path)
    parser.add_argument("--stays", action="store_true", help="live on when all ranks have ended, until it is killed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
