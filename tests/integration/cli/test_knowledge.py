"""`kitemesh knowledge` on a real MongoDB."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.requirement("knowledge:command")
def test_files_and_folders_are_stored_listed_and_removed(run: Run, tmp_path: Path) -> None:
    write(tmp_path, "handbook.md", "# Returns\n\nWithin 30 days.\n\n# Shipping\n\nOn Mondays.\n")
    write(tmp_path, "docs/a.txt", "Plain text.")
    write(tmp_path, "docs/deep/b.markdown", "Deep text.")
    write(tmp_path, "docs/picture.png", "no text")
    added = run("knowledge", "add", "handbook.md", "docs", "--tenant", "a")
    assert added.code == 0, added.err
    assert added.out.splitlines() == [
        "handbook.md: stored, 2 passages",
        "docs/a.txt: stored, 1 passage",
        "docs/deep/b.markdown: stored, 1 passage",
    ]
    assert added.err == ""
    header, *rows = run("knowledge", "list", "--tenant", "a").out.splitlines()
    assert header.split() == ["BASE", "NAME", "PASSAGES", "CHARACTERS", "STORED", "ID"]
    assert [row.split()[:2] for row in rows] == [
        ["default", "docs/a.txt"],
        ["default", "docs/deep/b.markdown"],
        ["default", "handbook.md"],
    ]
    write(tmp_path, "handbook.md", "Nothing is left.")
    assert run("knowledge", "add", str(tmp_path / "handbook.md"), "--tenant", "a").out == (
        "handbook.md: replaced, 1 passage\n"
    )
    listed = json.loads(run("knowledge", "list", "--tenant", "a", "--json").out)
    by_id = next(each["id"] for each in listed if each["name"] == "docs/a.txt")
    removed = run("knowledge", "remove", "handbook.md", by_id, "./docs/deep/b.markdown", "--tenant", "a")
    assert removed.out.splitlines() == ["handbook.md: removed", "docs/a.txt: removed", "docs/deep/b.markdown: removed"]
    assert run("knowledge", "list", "--tenant", "a").out == "tenant a has no documents\n"
    assert run("knowledge", "list", "--tenant", "a", "--base", "x").out == "base x of tenant a has no documents\n"


def test_bases_and_tenants_are_kept_apart(run: Run, tmp_path: Path) -> None:
    write(tmp_path, "a.md", "One.")
    made = json.loads(run("knowledge", "add", "a.md", "--tenant", "a", "--base", "support", "--json").out)
    assert [(each["base"], each["name"], each["passages"]) for each in made] == [("support", "a.md", 1)]
    assert run("knowledge", "list", "--tenant", "b").out == "tenant b has no documents\n"
    for words in (("--tenant", "a"), ("--tenant", "b", "--base", "support")):
        refused = run("knowledge", "remove", "a.md", *words)
        assert refused.code == 1
        assert "has no document a.md" in refused.err
    assert len(json.loads(run("knowledge", "list", "--tenant", "a", "--base", "support", "--json").out)) == 1


def test_of_what_cannot_be_read_everything_is_said_and_nothing_is_stored(run: Run, tmp_path: Path) -> None:
    write(tmp_path, "good.md", "Good.")
    write(tmp_path, "empty.md", " \n")
    write(tmp_path, "new\nline.md", "x")
    (tmp_path / "binary.md").write_bytes(b"\xff\xfe\x00")
    refused = run("knowledge", "add", "good.md", "absent.md", "empty.md", "new\nline.md", "binary.md", "--tenant", "a")
    assert refused.code == 1
    assert refused.err.splitlines() == [
        "kitemesh: absent.md cannot be read: No such file or directory",
        "kitemesh: empty.md is empty",
        "kitemesh: new\\nline.md must have a name of 1 to 255 printable characters",
        "kitemesh: binary.md is not UTF-8 text",
        "kitemesh: nothing was stored",
    ]
    assert run("knowledge", "list", "--tenant", "a").out == "tenant a has no documents\n"
    (tmp_path / "bare").mkdir()
    assert "no text or Markdown file" in run("knowledge", "add", "bare", "--tenant", "a").err


@pytest.mark.requirement("knowledge:command")
def test_a_terminal_is_shown_how_far_it_is(run: Run, tmp_path: Path) -> None:
    write(tmp_path, "long.md", "\n\n".join(f"# Part {n}\n\nText of it." for n in range(300)))
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "kitemesh_cli", "knowledge", "add", "long.md", "--tenant", "a"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, check=True, text=True, cwd=tmp_path)
    os.close(terminal)
    shown = os.read(screen, 65_536).decode()
    os.close(screen)
    assert done.stdout == "long.md: stored, 300 passages\n"
    assert "100%  long.md" in shown
    assert shown.endswith("\r\x1b[K")
