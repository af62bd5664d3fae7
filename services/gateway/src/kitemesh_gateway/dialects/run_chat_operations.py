"""What the server does, told beside the message to who asked for it. Pure: it follows from the events themselves."""

from collections.abc import Callable, Iterable, Iterator

from kitemesh_gateway.dialects.run_chat_events import (
    ApprovalRequested,
    Event,
    FinishStep,
    InputAvailable,
    InputRefused,
    Operation,
    OperationOut,
    OutputAvailable,
    OutputDenied,
    OutputRefused,
    StartStep,
)


def with_operations(step: Callable[[], int], events: Iterable[Event]) -> Iterator[Event]:
    """Tell, behind each event, what the server does then.

    Args:
        step: Returns the one that is open.
        events: Of the message.

    """
    for event in events:
        yield event
        done = _operation_of(step(), event)
        if done is not None:
            yield Operation(data=done)


def _operation_of(step: int, event: Event) -> OperationOut | None:
    match event:
        case StartStep():
            return OperationOut(type="step-started", step=step)
        case FinishStep():
            return OperationOut(type="step-finished", step=step)
        case InputAvailable():
            return OperationOut(
                type="tool-called", step=step, tool_call_id=event.tool_call_id, tool_name=event.tool_name
            )
        case ApprovalRequested():
            return OperationOut(type="tool-held", step=step, tool_call_id=event.tool_call_id)
        case OutputAvailable():
            return OperationOut(type="tool-returned", step=step, tool_call_id=event.tool_call_id)
        case InputRefused() | OutputDenied() | OutputRefused():
            return OperationOut(type="tool-failed", step=step, tool_call_id=event.tool_call_id)
        case _:
            return None
