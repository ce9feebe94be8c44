# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

from insitu.dashboard import journal
from insitu.dashboard.journal import LogTail


def test_lines_are_read_once_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = LogTail(path)
    assert not log.refresh()
    path.write_text('{"text": "one"}\n{"text": "t')
    assert log.refresh()
    assert not log.refresh()
    with path.open("a") as file:
        file.write('wo"}\nno json\n[1]\n')
    assert log.refresh()
    assert [event["text"] for event in log.events] == ["one", "two"]


def test_of_a_long_log_only_the_end_is_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(journal, "READ_BYTES", 100)
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"n": n}) + "\n" for n in range(1000)))
    log = LogTail(path)
    log.refresh()
    assert [event["n"] for event in log.events] == list(range(991, 1000))
