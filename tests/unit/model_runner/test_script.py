import pytest

from kitemesh_contracts.content import AssistantMessage, Message, SystemMessage, TextPart, ToolMessage, UserMessage
from kitemesh_contracts.deltas import Delta, ReasoningDelta, TextDelta
from kitemesh_contracts.errors import ErrorCode
from kitemesh_model_runner.script import MAX_PAUSE_MS, MAX_TOKENS, Script, count_words, reply, write


def user(text: str) -> UserMessage:
    return UserMessage(parts=(TextPart(text=text),))


def text_of(deltas: tuple[Delta, ...]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


def script(text: str) -> Script:
    return write([user(text)])


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "",
        "write to me@tokens 5",
        "@unknown 3",
        "@tokens many",
        "@tokens -1",
        "@fail request.invalid",
        "@hang up",
    ],
)
def test_ordinary_text_gets_the_fixed_reply(text: str) -> None:
    assert text_of(script(text).deltas) == reply([user("")])
    assert script(text).stop_after is None


def test_the_reply_quotes_nobody_and_says_how_to_connect_a_real_model() -> None:
    said = text_of(write([SystemMessage(text="be rude"), user("<script>alert(1)</script>")]).deltas)
    assert "script>" not in said
    assert "rude" not in said
    assert "OPENAI_API_KEY" in said


def test_the_reply_counts_what_was_said() -> None:
    assert "said 1 thing in" in reply([user("a")])
    assert "said 2 things in" in reply([user("a"), AssistantMessage(text="b"), user("c")])


def test_the_same_prompt_gets_the_same_script() -> None:
    assert script("@tokens 30") == script("@tokens 30")


def test_an_echo_is_spelled_word_by_word_and_loses_nothing() -> None:
    deltas = script("please\n@echo Grüße,  you  there!").deltas
    assert [delta.text for delta in deltas if isinstance(delta, TextDelta)] == ["Grüße,  ", "you  ", "there!"]


def test_instructions_add_up() -> None:
    got = script("@reason 2\n@echo x\n@tokens 3\n@delay_ms 20\n@first_ms 1.5\n@delay_ms 30\r\n@finish length")
    assert got == Script(
        deltas=(
            ReasoningDelta(text="hm "),
            ReasoningDelta(text="hm "),
            TextDelta(text="x"),
            TextDelta(text="alfa "),
            TextDelta(text="bravo "),
            TextDelta(text="charlie "),
        ),
        delay_s=0.03,
        finish="length",
    )


def test_roles_tell_what_the_model_was_given() -> None:
    prompt: list[Message] = [
        SystemMessage(text="s"),
        user("old"),
        AssistantMessage(text="a"),
        ToolMessage(call="c", text="r"),
        user("@roles"),
    ]
    assert text_of(write(prompt).deltas) == "system user assistant tool user"


@pytest.mark.parametrize(
    ("text", "error", "after"),
    [
        ("@fail upstream.failed", ErrorCode.UPSTREAM_FAILED, 0),
        ("@fail upstream.cut after 3", ErrorCode.UPSTREAM_CUT, 3),
        ("@hang", None, 0),
        ("@hang after 2", None, 2),
    ],
)
def test_a_script_can_break_off(text: str, error: ErrorCode | None, after: int) -> None:
    got = script(text + "\n@tokens 5")
    assert (got.error, got.stop_after, len(got.deltas)) == (error, after, 5)


def test_nobody_can_ask_for_too_much() -> None:
    got = script("@tokens 999999999999999\n@delay_ms 999999999999")
    assert len(got.deltas) == MAX_TOKENS
    assert got.delay_s == MAX_PAUSE_MS / 1000


def test_words_are_counted_over_the_whole_prompt() -> None:
    assert count_words([SystemMessage(text="a b"), user("c  d\ne"), AssistantMessage(text="f")]) == 6


def test_without_a_user_message_there_is_a_reply_all_the_same() -> None:
    assert text_of(write([SystemMessage(text="@tokens 3")]).deltas) == reply([])
