"""What conversations are shown as, and what may be asked of them."""

import pytest
from msgspec import to_builtins
from msgspec.json import decode, encode

from kitemesh_contracts.content import (
    AssistantMessage,
    CallResult,
    FilePart,
    Step,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from kitemesh_contracts.scopes import Scope
from kitemesh_gateway.auth import Principal
from kitemesh_gateway.deleting import may_see
from kitemesh_gateway.dialects.base import Mistakes
from kitemesh_gateway.dialects.conversations_bodies import parse_patch, words_of
from kitemesh_gateway.dialects.conversations_rendering import (
    Place,
    conversation_out,
    messages_of,
    place_text,
    read_place,
)
from kitemesh_runtime.conversations import Conversation, Waiting
from kitemesh_runtime.live_turns import LiveTurn
from kitemesh_runtime.turns import TurnRecord

KEPT = Conversation(
    id="talk",
    tenant="acme",
    created_at_s=1_700_000_000.0,
    updated_at_s=1_700_000_060.5,
    agent="guide",
    active="turn-3",
    active_until_s=1_700_000_090.0,
    waiting=(Waiting(turn="turn-4", start=b"secret"),),
    turns=3,
    first="turn-1",
    model="group:x",
    metadata={"topic": "kites"},
)
LOOKED = ToolCall(id="call-1", name="look", arguments='{"secret": 1}')
RECORD = TurnRecord(
    id="turn-1",
    tenant="acme",
    status="completed",
    mode="classic",
    model="m",
    ordinal=1,
    accepted_at_ms=1_700_000_000_000,
    ended_at_ms=1_700_000_002_000,
    message="mine",
    input=(
        SystemMessage(text="Be kind."),
        ToolMessage(call="theirs", text="42"),
        UserMessage(
            parts=(
                TextPart(text="What is this?"),
                FilePart(media_type="image/png", name="a.png", blob="hidden", size=12),
                FilePart(media_type="", url="https://example.org/b"),
            )
        ),
    ),
    steps=(Step(step=1, text="Let me look.", calls=(LOOKED,), results=(CallResult(call="call-1", text="a kite"),)),),
    answer=AssistantMessage(text="A kite."),
)


def _shown(turn: LiveTurn | TurnRecord) -> list[dict[str, object]]:
    return [decode(encode(each.message)) for each in messages_of(turn, None)]


def test_a_conversation_is_shown_with_who_is_active_and_how_many_wait() -> None:
    assert to_builtins(conversation_out(KEPT, 1_700_000_080.0)) == {
        "id": "talk",
        "title": None,
        "metadata": {"topic": "kites"},
        "agent": "guide",
        "model": "group:x",
        "created_at": "2023-11-14T22:13:20.000Z",
        "updated_at": "2023-11-14T22:14:20.500Z",
        "turns": 3,
        "active_execution_id": "turn-3",
        "waiting": 1,
    }


def test_a_lock_that_ran_out_is_nobodys() -> None:
    assert conversation_out(KEPT, 1_700_000_090.0).active_execution_id is None


@pytest.mark.requirement("conversation:messages-in-pages")
def test_the_messages_of_a_turn_are_shown_in_the_order_in_which_they_were_said() -> None:
    began, ended = "2023-11-14T22:13:20.000Z", "2023-11-14T22:13:22.000Z"
    called = {"id": "call-1", "name": "look", "status": "completed", "result": "a kite"}
    common = {"execution_id": "turn-1", "created_at": began}
    assert _shown(RECORD) == [
        {"id": "turn-1-0", "role": "system", "content": "Be kind.", **common},
        {"id": "turn-1-1", "role": "tool", "content": "42", "tool_call_id": "theirs", **common},
        {
            "id": "mine",
            "role": "user",
            "content": "What is this?",
            "files": [
                {"media_type": "image/png", "name": "a.png", "size": 12},
                {"media_type": "", "url": "https://example.org/b"},
            ],
            **common,
        },
        {
            "id": "turn-1-3",
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [called],
            **common,
            "created_at": ended,
        },
        {"id": "turn-1", "role": "assistant", "content": "A kite.", **common, "created_at": ended},
    ]


def test_what_a_person_added_to_an_answer_is_shown_behind_it() -> None:
    step = Step(
        step=1, text="Shall I?", calls=(LOOKED,), results=(CallResult(call="call-1", text="x"),), texts=("Yes",)
    )
    live = LiveTurn(
        id="turn-2",
        tenant="acme",
        version=3,
        status="running",
        mode="durable",
        model="m",
        state=b"",
        ordinal=2,
        steps=(step,),
        input=(UserMessage(parts=(TextPart(text="Go"),)),),
    )
    shown = [(each["id"], each["role"], each["content"]) for each in _shown(live)]
    assert shown == [
        ("turn-2-0", "user", "Go"),
        ("turn-2-1", "assistant", "Shall I?"),
        ("turn-2-2", "user", "Yes"),
    ]


def test_a_messages_place_is_told_and_read_again() -> None:
    places = [each.place for each in messages_of(RECORD, None)]
    assert places == [Place(1, n) for n in range(5)] == sorted(places)
    assert [read_place(place_text(place)) for place in places] == places
    for text in ("", "1", "1-", "-1", "a-1", "1-1-1", "1-1\n", "12345678901-1", "१-1"):
        assert read_place(text) is None


@pytest.mark.requirement("conversation:title-and-metadata")
def test_a_patch_says_what_it_changes() -> None:
    patch = parse_patch({"title": None, "metadata": {"a": "b"}, "unknown": 1})
    assert (patch.title, patch.metadata, patch.model_fields_set) == (None, {"a": "b"}, {"title", "metadata"})
    assert parse_patch({"title": "x" * 200}).model_fields_set == {"title"}


@pytest.mark.requirement("conversation:title-and-metadata")
@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ([], [""]),
        ({}, [""]),
        ({"other": 1}, [""]),
        ({"title": 1, "metadata": []}, ["title", "metadata"]),
        ({"title": "x" * 201}, ["title"]),
        ({"metadata": {"a": 1, "b": "x" * 513}}, ["metadata.a", "metadata.b"]),
        ({"metadata": {str(n): "" for n in range(17)}}, ["metadata"]),
    ],
)
def test_a_patch_that_is_wrong_is_told_every_mistake(body: object, fields: list[str]) -> None:
    with pytest.raises(Mistakes) as raised:
        parse_patch(body)
    assert [mistake.field for mistake in raised.value.mistakes] == fields


@pytest.mark.requirement("conversation:searched-by-its-words")
def test_a_search_is_for_words() -> None:
    assert words_of(['Where is "my" Rechnung-7?']) == (["Where", "is", "my", "Rechnung", "7"], [])
    for given in ([""], ["?!"], ["a", "b"], ["x" * 201], ["w " * 11]):
        words, mistakes = words_of(given)
        assert words == []
        assert [mistake.field for mistake in mistakes] == ["q"]


@pytest.mark.parametrize(
    ("models", "kept", "seen"),
    [
        (None, KEPT, True),
        ({"group:x"}, KEPT, True),
        ({"agent:guide"}, KEPT, True),
        ({"group:y", "guide"}, KEPT, False),
        ({"group:y"}, Conversation(id="c", tenant="acme", created_at_s=0, updated_at_s=0), False),
    ],
)
def test_a_key_sees_conversations_with_what_it_may_name(
    models: set[str] | None, kept: Conversation, seen: bool
) -> None:
    allowed = None if models is None else frozenset(models)
    principal = Principal(tenant="acme", key="k", scopes=frozenset({Scope.CHAT}), models=allowed)
    assert may_see(principal, kept) is seen
