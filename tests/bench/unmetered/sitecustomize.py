"""Found by Python before a service's own code when this folder is on its path: SIGUSR1 has it count nothing, or again.

Two processes of the same code differ by more than what metrics cost, so one and the same is measured with and without.
Methods are emptied where they are, because the services have bound them; nobody is asked what queues hold, either.
"""

import signal
import sys
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any


def _nothing(*_: Any, **__: Any) -> None:
    """Count nothing, however it is asked to."""


async def _asleep(_self: Any) -> None:
    """Ask nobody."""


def _swap(functions: dict[FunctionType, CodeType]) -> None:
    for function, other in functions.items():
        functions[function], function.__code__ = function.__code__, other


def _switch() -> Callable[..., None]:
    # Whatever else Python runs on this path has no need of them.
    from prometheus_client import Gauge  # noqa: PLC0415

    from kitemesh_runtime.instruments import Counter, Histogram  # noqa: PLC0415
    from kitemesh_runtime.queue_gauges import QueueGauges  # noqa: PLC0415

    counting = (Counter.inc, Gauge.inc, Gauge.dec, Gauge.set, Histogram.observe)
    functions = {each: _nothing.__code__ for each in counting if isinstance(each, FunctionType)}
    if isinstance(QueueGauges.look, FunctionType):
        functions[QueueGauges.look] = _asleep.__code__
    return lambda *_: _swap(functions)


if any(word.startswith("kitemesh_") and word != "kitemesh_cli" for word in sys.orig_argv):
    signal.signal(signal.SIGUSR1, _switch())
