# SPDX-License-Identifier: Apache-2.0
"""Steers one run for all who operate its dashboard: a console in a thread of its own, opened when it is needed."""

import json
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

from insitu.console import Console
from insitu.errors import InsituError
from insitu.steering.actions import Receipt
from insitu.steering.parameters import ParameterSpec
from insitu.wire.contact import Contact

#: What every simulation can be asked for without a value.
VERBS = ("pause", "resume", "checkpoint", "stop")
#: Requests of the dashboard that may wait; more are refused with a sentence.
WAITING = 32
_TURN_S = 0.05


class Helm:
    """The console of one dashboard. `news` is called, in its thread, when there is something new to show."""

    def __init__(self, contact: Contact, news: Callable[[], None]) -> None:
        self.parameters: dict[str, ParameterSpec] = {}
        self.actions: dict[str, dict[str, ParameterSpec]] = {}
        self.values: dict[str, Any] = {}
        #: Whether the run has said what can be steered, and why it cannot, where it cannot.
        self.ready = False
        self.trouble = ""
        self._contact = contact
        self._news = news
        self._asked: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue(WAITING)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Connect, if that was not done yet. Returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="insitu-helm", daemon=True)
            self._thread.start()

    def ask(self, kind: str, values: Mapping[str, Any]) -> None:
        """Ask for an action, with values as a page has them: texts, which become what the parameter takes."""
        specs = self.parameters if kind == "set" else self.actions.get(kind, {})
        try:
            if kind not in (*VERBS, "set", *self.actions):
                raise ValueError(f"'{kind}' is no action of this run")
            self._asked.put_nowait((kind, {name: parsed(specs.get(name), name, text) for name, text in values.items()}))
            self.trouble = ""
        except ValueError as error:
            self.trouble = f"{str(error)[:1].upper()}{str(error)[1:]}."
        except queue.Full:
            self.trouble = f"{WAITING} actions are under way already; wait for their receipts."
        self._news()

    def close(self) -> None:
        """Leave the run. May be called twice."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with Console(self._contact, user="dashboard") as console:
                while not self._closing.is_set():
                    self._turn(console)
        except Exception as error:
            self.trouble = f"This run cannot be steered from here any more: {error}"
            if not isinstance(error, (InsituError, TimeoutError)):
                raise
        finally:
            self.ready = False
            if not self._closing.is_set():
                self._news()

    def _turn(self, console: Console) -> None:
        before = (self.ready, len(self.parameters), len(self.actions), dict(self.values))
        console.listen(_TURN_S)
        self.parameters, self.actions, self.values = console.parameters, console.actions, dict(console.values)
        self.ready = console.ready
        receipts: list[Receipt] = list(console.receipts)
        console.receipts.clear()
        while not self._asked.empty():
            kind, values = self._asked.get()
            console.act(kind, values)
        if receipts or before != (self.ready, len(self.parameters), len(self.actions), self.values):
            self._news()


def parsed(spec: ParameterSpec | None, name: str, text: Any) -> Any:
    """Return what a page's text says, as this parameter takes it. Raises `ValueError` with what was expected.

    >>> feed = ParameterSpec.of("feed", 0.035, minimum=0.0, maximum=0.1)
    >>> parsed(feed, "feed", "0.05"), parsed(ParameterSpec.of("on", True), "on", "false")
    (0.05, False)
    """
    if spec is None:
        raise ValueError(f"'{name}' is nothing that this run lets be set")
    try:
        match spec.kind:
            case "bool":
                value: Any = {"true": True, "false": False}[str(text).lower()]
            case "int":
                value = int(text)
            case "float":
                value = float(text)
            case "str":
                value = str(text)
            case _:
                value = json.loads(text)
    except (KeyError, ValueError, TypeError):
        raise ValueError(f"'{name}' takes {_WORDS[spec.kind]}, and got {text!r:.80}") from None
    try:
        spec.check(value)
    except InsituError as error:
        raise ValueError(str(error).rstrip(".")) from None
    return value


_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "array": "numbers in brackets, such as [1.0, 2.5]",
    "field": "numbers in brackets",
}
