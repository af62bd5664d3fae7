"""The further choices of an answer, as the caller may have them. Pure.

Nothing of them runs here, so they may call only what the caller offered: a model's output has no authority.
"""

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from kitemesh_contracts.content import Alternative, ToolSpec


def permitted(alternatives: Sequence[Alternative], tools: Collection[ToolSpec]) -> tuple[Alternative, ...]:
    """Return the choices without the calls of tools that are not the caller's."""
    names = {tool.name for tool in tools}
    return tuple(_without_others(each, names) for each in alternatives)


def _without_others(choice: Alternative, names: Collection[str]) -> Alternative:
    calls = tuple(call for call in choice.calls if call.name in names)
    if calls == choice.calls:
        return choice
    finish = "stop" if choice.finish == "tool_calls" and not calls else choice.finish
    return replace(choice, calls=calls, finish=finish)
