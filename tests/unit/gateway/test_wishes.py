import pytest

from kitemesh_contracts.commands import Priority
from kitemesh_contracts.content import Sampling
from kitemesh_gateway.dialects.base import Mistakes, TurnRequest
from kitemesh_gateway.wishes import allowed, wished

ASKED = TurnRequest(model="m", messages=(), sampling=Sampling(), stream=False)


def test_without_headers_a_request_is_what_it_was() -> None:
    assert wished({}, ASKED) is ASKED


@pytest.mark.requirement("backpressure:max-wait", "fairness:priority")
def test_headers_say_how_long_a_request_may_wait_and_how_urgent_it_is() -> None:
    found = wished({"x-kitemesh-max-wait-s": "2.5", "x-kitemesh-priority": "batch"}, ASKED)
    assert (found.max_wait_s, found.priority) == (2.5, "batch")


@pytest.mark.requirement("backpressure:max-wait")
@pytest.mark.parametrize("wait", ["", "soon", "0", "-1", "nan", "inf", "3601", "1_0e9"])
def test_a_wait_that_is_none_is_refused(wait: str) -> None:
    with pytest.raises(Mistakes) as caught:
        wished({"x-kitemesh-max-wait-s": wait}, ASKED)
    assert [each.field for each in caught.value.mistakes] == ["x-kitemesh-max-wait-s"]


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(Mistakes) as caught:
        wished({"x-kitemesh-max-wait-s": "x", "x-kitemesh-priority": "first"}, ASKED)
    assert [each.field for each in caught.value.mistakes] == ["x-kitemesh-max-wait-s", "x-kitemesh-priority"]


@pytest.mark.requirement("fairness:priority")
@pytest.mark.parametrize(
    ("wanted", "given", "found"),
    [
        (None, None, "interactive"),
        ("interactive", None, "interactive"),
        ("batch", None, "batch"),
        (None, "batch", "batch"),
        ("interactive", "batch", "batch"),
        ("batch", "interactive", "batch"),
    ],
)
def test_a_client_may_be_less_urgent_than_its_key_and_never_more(
    wanted: Priority | None, given: Priority | None, found: Priority
) -> None:
    assert allowed(wanted, given) == found
