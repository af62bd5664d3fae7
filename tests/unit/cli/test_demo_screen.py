import pytest

from kitemesh_cli.demo_screen import Screen


def test_text_flows_and_breaks_between_words(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(plain=True)
    for word in ["word "] * 30:
        screen.write(word)
    screen.line("")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [" ".join(["word"] * 16), " ".join(["word"] * 14), ""]


def test_what_happens_has_a_line_of_its_own_and_the_text_goes_on_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(plain=True)
    screen.write("one ")
    screen.note("something was killed")
    screen.write("two")
    out = capsys.readouterr().out
    assert out.startswith("one\n[  0.")
    assert out.endswith("s] something was killed\ntwo")


async def test_nothing_is_taken_back_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(plain=False)
    async with screen.watched():
        screen.write("one ")
        screen.note("note")
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out
    assert shown.err == ""
