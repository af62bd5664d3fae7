"""What a log line looks like, whatever is put into it."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

SETUP = """
import logging, structlog
from kitemesh_runtime import logs
logs.configure(level="info", log_format="json", service="test", replica="test-1")
log = structlog.get_logger()
"""


def logged(script: str) -> list[dict[str, Any]]:
    """Run a script in a process of its own and return its log lines."""
    done = subprocess.run([sys.executable, "-c", SETUP + script], capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.decode().split("\n") if line]


def test_a_line_names_its_service_replica_level_and_time() -> None:
    (line,) = logged('log.info("turn.ended", turn="t-1", ms=1.5, code=None)')
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "turn.ended",
        "turn": "t-1",
        "ms": 1.5,
        "code": None,
        "level": "info",
        "service": "test",
        "replica": "test-1",
    }


@pytest.mark.requirement("log:no-forged-lines")
@pytest.mark.parametrize("hostile", [r"a\nb", r"\x1b[31m", r"\u2028", r"\ud800", r"{\"event\":\"forged\"}"])
def test_no_text_can_forge_or_break_a_line(hostile: str) -> None:
    (line,) = logged(f'log.info("request.answered", given="{hostile}")')
    assert line["event"] == "request.answered"


def test_what_has_no_json_form_is_shown_as_python_shows_it() -> None:
    (line,) = logged('log.info("x", value=b"raw", other=ValueError("no"))')
    assert line["other"] == "ValueError('no')"


def test_libraries_that_use_the_standard_logger_come_out_the_same_way_from_warning_on() -> None:
    (line,) = logged('logging.getLogger("lib").info("quiet"); logging.getLogger("lib").warning("loud")')
    assert (line["event"], line["logger"], line["level"]) == ("loud", "lib", logging.getLevelName(30).lower())


def test_a_traceback_is_one_line() -> None:
    (line,) = logged('try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception("broke")')
    assert "ZeroDivisionError" in line["exception"]
