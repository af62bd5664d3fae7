from kitemesh_contracts.content import (
    AssistantMessage,
    FilePart,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    Usage,
    UserMessage,
)
from kitemesh_model_runner.usage import count_as_said, estimate


def test_four_characters_are_a_token_and_a_part_counts_as_one() -> None:
    prompt: list[Message] = [
        SystemMessage(text="12345"),
        UserMessage(parts=(TextPart(text="678"),)),
        AssistantMessage(text="9"),
    ]
    assert estimate(prompt, text_characters=5, reasoning_characters=4) == Usage(
        input_tokens=3, output_tokens=3, reasoning_tokens=1
    )


def test_a_file_counts_as_much_as_a_picture_and_a_call_as_its_arguments() -> None:
    prompt: list[Message] = [
        UserMessage(parts=(FilePart(media_type="image/png", blob="b"), TextPart(text="1234"))),
        AssistantMessage(calls=(ToolCall(id="c", name="f", arguments='{"a":"b"}'),)),
    ]
    usage = estimate(prompt, text_characters=0, reasoning_characters=0)
    assert usage == Usage(input_tokens=1000 + 1 + 3)


def test_nothing_costs_nothing() -> None:
    assert estimate([], text_characters=0, reasoning_characters=0) == Usage()


def test_what_an_endpoint_found_said_is_counted_as_said() -> None:
    usage = Usage(input_tokens=10, output_tokens=5, cached_tokens=8, reasoning_tokens=1)
    assert count_as_said(usage, 3) == Usage(input_tokens=7, output_tokens=8, cached_tokens=7, reasoning_tokens=1)


def test_no_estimate_makes_a_count_negative() -> None:
    assert count_as_said(Usage(input_tokens=2, output_tokens=5), 3) == Usage(input_tokens=0, output_tokens=8)
