"""The Python tool that ships."""

import pytest

from kitemesh_contracts.errors import ToolFailed
from kitemesh_tool_executor.tool_python import PythonTool, TextToMeasure, measure_text

TOOL = PythonTool(TextToMeasure, measure_text)


async def test_it_counts_characters_words_and_lines() -> None:
    assert await TOOL.run('{"text":"one two\\nthree"}') == '{"characters":13,"words":3,"lines":2}'


@pytest.mark.parametrize(
    "arguments", ["", "null", "{}", '{"text":1}', '{"text":"a","more":1}', "[" * 3000, '{"text":"\ud800"}']
)
async def test_arguments_that_do_not_fit_are_refused(arguments: str) -> None:
    with pytest.raises(ToolFailed):
        await TOOL.run(arguments)
