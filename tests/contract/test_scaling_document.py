"""The scaling proof's page has the tables and the plot of a whole run in which no turn failed."""

import re
from pathlib import Path

from scale.scale_stage import SLOTS
from scale.scale_table import BEGIN, END


def tables(repository: Path) -> str:
    text = (repository / "docs" / "scaling.md").read_text()
    return text.partition(BEGIN)[2].partition(END)[0]


def test_every_step_of_every_service_is_on_the_page_and_nothing_failed(repository: Path) -> None:
    text = tables(repository)
    steps = re.findall(r"^\| (\d) \|.* (\d+) \|$", text, re.MULTILINE)
    assert [int(replicas) for replicas, _ in steps] == [1, 2, 4, 1, 2, 1, 2, 3]
    assert {failed for _, failed in steps} == {"0"}
    assert re.search(r"left by SIGTERM and 1 by `kill -9`: \*\*0 failed\*\*", text)
    assert f"{SLOTS} slots each" in text


def test_the_page_shows_the_plot(repository: Path) -> None:
    assert "(scaling.png)" in (repository / "docs" / "scaling.md").read_text()
    assert (repository / "docs" / "scaling.png").read_bytes().startswith(b"\x89PNG")
