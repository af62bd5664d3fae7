from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitemesh_runtime.weights import order

MODELS = ("a", "b", "c", "d")


def test_without_weights_models_keep_their_order() -> None:
    assert order(MODELS, {}, "t-1") == MODELS


@pytest.mark.requirement("routing:weights")
def test_each_model_comes_first_as_often_as_its_weight_says() -> None:
    first = Counter(order(MODELS, {"a": 1, "c": 3}, f"turn-{n}")[0] for n in range(20_000))
    assert set(first) == {"a", "c"}
    assert first["c"] / 20_000 == pytest.approx(0.75, abs=0.02)


def test_the_others_with_a_weight_come_before_those_without() -> None:
    weights = {"d": 5, "b": 1, "c": 0}
    assert {order(MODELS, weights, f"turn-{n}") for n in range(200)} == {("d", "b", "a", "c"), ("b", "d", "a", "c")}


@pytest.mark.requirement("routing:weights")
@given(st.dictionaries(st.sampled_from(MODELS), st.integers(0, 1000)), st.text(max_size=40))
def test_a_turn_has_one_order_with_every_model_in_it(weights: dict[str, int], turn: str) -> None:
    found = order(MODELS, weights, turn)
    assert sorted(found) == sorted(MODELS)
    assert order(MODELS, weights, turn) == found
