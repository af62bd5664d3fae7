"""In which order models are tried that share the first place by weight. Pure.

The same turn always gives the same order, whoever asks.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from zlib import crc32


def order(models: Sequence[str], weights: Mapping[str, int], turn: str) -> tuple[str, ...]:
    """Return the models in the order to try them.

    Each of those with a weight comes first as often as its weight is of the sum of all; the others with a weight follow
    by falling weight, then those without one in their order.
    """
    weighted = [model for model in models if weights.get(model)]
    if not weighted:
        return tuple(models)
    sums = list(accumulate(weights[model] for model in weighted))
    point = crc32(turn.encode()) % sums[-1]
    first = next(model for model, end in zip(weighted, sums, strict=True) if point < end)
    rest = sorted((model for model in weighted if model != first), key=lambda model: -weights[model])
    return (first, *rest, *(model for model in models if not weights.get(model)))
