from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from kitemesh_contracts.commands import Route
from kitemesh_contracts.content import FilePart, Part, ResponseFormat, Sampling, TextPart, ToolSpec, UserMessage
from kitemesh_contracts.errors import BadRequest, ErrorCode
from kitemesh_gateway.capabilities import narrow, problems
from kitemesh_gateway.dialects.base import Mistake, TurnRequest
from kitemesh_gateway.request_size import check_size
from kitemesh_runtime.catalog import Capability, Model

PLAIN = TurnRequest(model="m", messages=(UserMessage(parts=(TextPart(text="Hi"),)),), sampling=Sampling(), stream=False)


def model(*can: Capability) -> Model:
    return Model(provider="p", can=can)


def with_part(part: Part) -> TurnRequest:
    return replace(PLAIN, messages=(*PLAIN.messages, UserMessage(parts=(TextPart(text="Look"), part))))


def sampled(**fields: Any) -> TurnRequest:
    return replace(PLAIN, sampling=Sampling(**fields))


IMAGE = with_part(FilePart(media_type="image/png", blob="#0", size=1))
NEEDS: list[tuple[TurnRequest, Capability, str]] = [
    (IMAGE, "images", "messages"),
    (with_part(FilePart(media_type="", url="https://a.example/1")), "images", "messages"),
    (with_part(FilePart(media_type="application/pdf", blob="#0", size=1)), "files", "messages"),
    (sampled(choices=2), "choices", "n"),
    (sampled(logprobs=True), "logprobs", "logprobs"),
    (sampled(response_format=ResponseFormat(kind="json_object")), "json_object", "response_format"),
    (sampled(response_format=ResponseFormat(kind="json_schema", name="x")), "json_schema", "response_format"),
    (replace(PLAIN, tools=(ToolSpec(name="f", parameters=Raw(b"{}")),)), "tools", "tools"),
    (sampled(reasoning_effort="low"), "reasoning", "reasoning_effort"),
]


@pytest.mark.requirement("completions:what-the-model-can")
@pytest.mark.parametrize(("request_", "can", "field"), NEEDS, ids=[f"{can}-{field}" for _, can, field in NEEDS])
def test_what_the_model_cannot_do_is_named_by_the_field_that_asks_for_it(
    request_: TurnRequest, can: Capability, field: str
) -> None:
    assert problems(request_, [model()]) == [Mistake(field, "the model cannot do that")]
    assert problems(request_, [model(), model()]) == [Mistake(field, "none of the models can do that")]
    assert problems(request_, [model(can)]) == []
    assert problems(request_, [model(), model(can)]) == []


@pytest.mark.requirement("completions:what-the-model-can")
@pytest.mark.parametrize("request_", [request_ for request_, _, _ in NEEDS])
def test_a_model_of_which_the_catalog_says_nothing_can_do_everything(request_: TurnRequest) -> None:
    assert problems(request_, [model(), Model(provider="p")]) == []


@pytest.mark.parametrize(
    "request_",
    [PLAIN, sampled(reasoning_effort="none"), with_part(FilePart(media_type="text/csv", blob="#0", size=1))],
)
def test_words_need_nothing(request_: TurnRequest) -> None:
    assert problems(request_, [model()]) == []


@pytest.mark.requirement("completions:what-the-model-can")
def test_everything_that_is_too_much_is_named_at_once() -> None:
    request = replace(IMAGE, sampling=Sampling(choices=3, logprobs=True))
    assert [each.field for each in problems(request, [model("logprobs")])] == ["messages", "n"]


@pytest.mark.requirement("completions:what-the-model-can")
def test_no_two_models_do_together_what_none_does_alone() -> None:
    request = replace(IMAGE, sampling=Sampling(logprobs=True))
    what = "no model can do that beside the rest"
    assert problems(request, [model("images"), model("logprobs")]) == [
        Mistake("messages", what),
        Mistake("logprobs", what),
    ]


@pytest.mark.requirement("completions:what-the-model-can")
def test_a_route_leads_only_to_models_that_can_do_it() -> None:
    models = {"words": model(), "eyes": model("images"), "all": Model(provider="p")}
    route = Route(requested="group:x", models=("words", "eyes", "all"), pool="default", agent="a")
    assert narrow(route, PLAIN, models) == route
    assert narrow(route, IMAGE, models) == replace(route, models=("eyes", "all"))
    unsaid = replace(route, models=("all",))
    assert narrow(unsaid, IMAGE, models) is unsaid


@pytest.mark.requirement("http:too-large-without-files")
def test_what_is_new_has_a_bound_and_files_do_not_count() -> None:
    check_size(replace(IMAGE, files=(bytes(5000),)), 1024)
    for large in (
        replace(PLAIN, messages=(UserMessage(parts=(TextPart(text="x" * 1024),)),)),
        replace(PLAIN, tools=(ToolSpec(name="f", description="x" * 1024, parameters=Raw(b"{}")),)),
        replace(PLAIN, prompt="x" * 1024),
        replace(PLAIN, values={"a": "x" * 1024}),
        replace(PLAIN, details="x" * 1024),
    ):
        with pytest.raises(BadRequest) as refused:
            check_size(large, 1024)
        assert refused.value.code is ErrorCode.REQUEST_TOO_LARGE
