from kitemesh_contracts.content import AssistantMessage, Message, SystemMessage, TextPart, Usage, UserMessage
from kitemesh_model_runner.usage import estimate


def test_four_characters_are_a_token_and_a_part_counts_as_one() -> None:
    prompt: list[Message] = [
        SystemMessage(text="12345"),
        UserMessage(parts=(TextPart(text="678"),)),
        AssistantMessage(text="9"),
    ]
    assert estimate(prompt, text_characters=5, reasoning_characters=4) == Usage(
        input_tokens=3, output_tokens=3, reasoning_tokens=1
    )


def test_nothing_costs_nothing() -> None:
    assert estimate([], text_characters=0, reasoning_characters=0) == Usage()
