import os
from pathlib import Path

import pytest

from kitemesh_cli.dev_lock import Holder, acquire, holder
from kitemesh_cli.failures import Failed


def test_the_holder_is_known_while_it_holds_and_not_after(tmp_path: Path) -> None:
    path = tmp_path / "dev.lock"
    assert holder(path) is None
    lock = acquire(path, "http://127.0.0.1:8002")
    assert holder(path) == Holder(os.getpid(), "http://127.0.0.1:8002")
    lock.release()
    assert holder(path) is None


def test_a_second_supervisor_is_told_who_runs_where(tmp_path: Path) -> None:
    lock = acquire(tmp_path / "dev.lock", "http://127.0.0.1:8002")
    try:
        with pytest.raises(Failed, match=f"process {os.getpid()} at http://127.0.0.1:8002") as caught:
            acquire(tmp_path / "dev.lock", "http://127.0.0.1:8003")
        assert "make down" in str(caught.value)
    finally:
        lock.release()


def test_what_a_killed_holder_wrote_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "dev.lock"
    path.write_text('{"pid": 1, "url": "http://127.0.0.1:8002"}')
    assert holder(path) is None
    acquire(path, "http://127.0.0.1:8002").release()
