"""The seconds of a training that was interrupted are those of all its starts."""

import contextlib
import time
from pathlib import Path

import pytest

from dil_plugin.study.spent_seconds import spent_seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    return now


def test_they_add_up_over_interruptions(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / 'seconds'
    with contextlib.suppress(SystemExit), spent_seconds(path, goes_on=False):
        clock[0] += 7.25
        raise SystemExit
    with spent_seconds(path, goes_on=True) as seconds:
        clock[0] += 3
        assert not path.exists()
    assert seconds() == 10.2
    with spent_seconds(path, goes_on=False) as seconds:
        clock[0] += 5
    assert seconds() == 5


def test_they_are_unknown_where_a_process_was_killed(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / 'seconds'
    for _ in range(2):  # and stay so
        with spent_seconds(path, goes_on=True) as seconds:
            clock[0] += 3
        assert seconds() is None
        assert not path.exists()
