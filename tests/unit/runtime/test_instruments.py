"""What the cheap counters and histograms show is what the library's own would."""

import math

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from kitemesh_runtime import instruments

BOUNDS = (0.001, 0.5, 1.0, 600.0)
amounts = st.one_of(st.sampled_from([*BOUNDS, 0.0]), st.floats(min_value=0, max_value=1e9))


def shown(
    counters: type[prometheus_client.Counter], histograms: type[prometheus_client.Histogram], *seen: float
) -> str:
    registry = CollectorRegistry()
    plain = counters("plain_total", "Plain.", registry=registry)
    labelled = counters("labelled_total", "Labelled.", ["a"], registry=registry).labels("x")
    times = histograms("times_seconds", "Times.", buckets=BOUNDS, registry=registry)
    named = histograms("named_seconds", "Named.", ["a", "b"], buckets=BOUNDS, registry=registry).labels("x", 'y"')
    for amount in seen:
        plain.inc()
        labelled.inc(amount)
        times.observe(amount)
        named.observe(amount)
    return "\n".join(line for line in generate_latest(registry).decode().splitlines() if "_created" not in line)


@given(st.lists(amounts, max_size=20))
def test_they_show_what_the_librarys_own_show(seen: list[float]) -> None:
    own = shown(instruments.Counter, instruments.Histogram, *seen)
    assert own == shown(prometheus_client.Counter, prometheus_client.Histogram, *seen)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_is_in_its_own_bucket_and_what_is_beyond_in_the_next(bound: float) -> None:
    for amount in (bound, math.nextafter(bound, math.inf)):
        own = shown(instruments.Counter, instruments.Histogram, amount)
        assert own == shown(prometheus_client.Counter, prometheus_client.Histogram, amount)
