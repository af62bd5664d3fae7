from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_contracts.commands import Generate
from kitemesh_contracts.content import FilePart, Message, ResponseFormat, Sampling, SystemMessage, ToolSpec, UserMessage
from kitemesh_contracts.content import TextPart as Text
from kitemesh_contracts.errors import ErrorCode, ProviderFailed
from kitemesh_model_runner.candidates import able, estimate
from kitemesh_runtime.catalog import Capability


class Model(NamedTuple):
    name: str
    can: tuple[Capability, ...] | None = None
    context_tokens: int | None = None


def job(text: str = "hello", *parts: FilePart, sampling: Sampling | None = None, **more: Any) -> Generate:
    return Generate(
        turn="t",
        tenant="n",
        gateway="g",
        mode="classic",
        step=1,
        attempt=1,
        models=("m",),
        messages=(UserMessage(parts=(Text(text=text), *parts)),),
        budget_s=1.0,
        sampling=sampling or Sampling(),
        stream=True,
        **more,
    )


TOOL = ToolSpec(name="look", description="looks", parameters=msgspec.Raw(b'{"type":"object"}'))
IMAGE = FilePart(media_type="image/png", url="https://example.com/a.png")
PDF = FilePart(media_type="application/pdf", blob="b")
TEXT = FilePart(media_type="text/plain", blob="b")


def names(models: Any) -> str:
    return "".join(each.name for each in models)


@pytest.mark.requirement("routing:capabilities")
@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        (job("hi", IMAGE), "images"),
        (job("hi", FilePart(media_type="", url="https://example.com/what")), "images"),
        (job("hi", PDF), "files"),
        (job("hi", tools=(TOOL,)), "tools"),
        (job("hi", sampling=Sampling(response_format=ResponseFormat(kind="json_object"))), "json_object"),
        (job("hi", sampling=Sampling(response_format=ResponseFormat(kind="json_schema"))), "json_schema"),
        (job("hi", sampling=Sampling(choices=2)), "choices"),
        (job("hi", sampling=Sampling(logprobs=True)), "logprobs"),
        (job("hi", sampling=Sampling(reasoning_effort="high")), "reasoning"),
    ],
)
def test_a_model_that_cannot_do_what_a_call_needs_is_left_out(asked: Generate, needed: Capability) -> None:
    models = [Model("a", ()), Model("b", (needed,)), Model("c", None)]
    assert names(able(asked, models)) == "bc"


@pytest.mark.parametrize("asked", [job("hi"), job("hi", TEXT), job("hi", sampling=Sampling(reasoning_effort="none"))])
def test_what_every_model_can_do_leaves_none_out(asked: Generate) -> None:
    assert names(able(asked, [Model("a", ()), Model("b", None)])) == "ab"


def test_where_no_model_can_see_a_file_words_take_its_place() -> None:
    asked = job("hi", IMAGE, tools=(TOOL,))
    assert names(able(asked, [Model("a", ("images",)), Model("b", ("tools",)), Model("c", ())])) == "b"


def test_where_none_can_do_it_their_providers_have_the_last_word() -> None:
    assert names(able(job("hi", tools=(TOOL,)), [Model("a", ()), Model("b", ("images",))])) == "ab"


@pytest.mark.requirement("routing:context-length")
def test_a_model_without_room_for_prompt_and_answer_is_left_out() -> None:
    asked = job("x" * 400, sampling=Sampling(max_tokens=50))
    models = [Model("a", None, 149), Model("b", None, 150), Model("c", None, 1_000_000), Model("d")]
    assert names(able(asked, models)) == "bcd"


def test_where_none_has_room_the_estimate_is_doubted() -> None:
    asked = job("x" * 400, sampling=Sampling(max_tokens=50))
    assert names(able(asked, [Model("a", None, 124), Model("b", None, 125), Model("c", None, 149)])) == "bc"


@pytest.mark.requirement("routing:context-length")
def test_a_prompt_that_is_far_too_long_for_all_is_refused_at_once() -> None:
    with pytest.raises(ProviderFailed) as caught:
        able(job("x" * 400), [Model("a", None, 20), Model("b", None, 74)])
    assert caught.value.code == ErrorCode.UPSTREAM_CONTEXT


def test_what_may_be_called_and_files_have_a_length_too() -> None:
    assert estimate(job("x" * 40)) == 10
    assert estimate(job("x" * 40, IMAGE)) == 1010
    assert estimate(job("x" * 40, tools=(TOOL,))) == 10 + (4 + 5 + 17 + 3) // 4


def test_of_those_that_can_do_it_the_roomy_ones_stay() -> None:
    asked = job("x" * 400, IMAGE)
    models = [Model("a", ("images",), 500), Model("b", (), 9999), Model("c", ("images",), 2000)]
    assert names(able(asked, models)) == "c"


MODELS = st.builds(
    Model,
    st.sampled_from("abcdef"),
    st.none() | st.lists(st.sampled_from(["tools", "images", "files", "json_schema"]), unique=True).map(tuple),
    st.none() | st.integers(1, 3000),
)


@given(
    models=st.lists(MODELS, min_size=1, max_size=6, unique_by=lambda each: each.name),
    words=st.integers(0, 8000),
    has_image=st.booleans(),
    has_tools=st.booleans(),
    answer=st.none() | st.integers(1, 2000),
)
def test_order_stays_and_nothing_appears_that_was_not_there(
    models: list[Model], words: int, has_image: bool, has_tools: bool, answer: int | None
) -> None:
    messages: tuple[Message, ...] = (SystemMessage(text="x" * words), UserMessage(parts=(IMAGE,) if has_image else ()))
    sampling = Sampling(max_tokens=answer)
    asked = msgspec.structs.replace(job(sampling=sampling, tools=(TOOL,) if has_tools else ()), messages=messages)
    wanted = estimate(asked) + (answer or 0)
    try:
        found = list(able(asked, models))
    except ProviderFailed:
        assert any(each.context_tokens is not None and each.context_tokens < wanted for each in models)
        return
    places = [models.index(each) for each in found]
    assert found
    assert places == sorted(places)
    needs = ({"images"} if has_image else set()) | ({"tools"} if has_tools else set())
    perfect = [
        each
        for each in models
        if (each.can is None or needs <= set(each.can))
        and (each.context_tokens is None or each.context_tokens >= wanted)
    ]
    if perfect:
        assert found == perfect
