"""Limits over three real gateways."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
import pytest

from cluster import GROUP, Cluster
from tool_cluster import Gateway, another_gateway, until

LIMIT, BURST_S = 120, 10
SECONDS = 2.5
MODEL = {"model": GROUP, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def gateways(
    cluster: Cluster, elsewhere: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sequence[Cluster]]:
    with another_gateway(cluster, tmp_path_factory.mktemp("third")) as third:
        yield cluster, elsewhere, third


def make_key(cluster: Cluster, **limits: int) -> str:
    made: dict[str, Any] = cluster.call("/v1/keys", {"scopes": ["chat"], "limits": limits}).json()
    return str(made["key"])


async def press(gateways: Sequence[Cluster], key: str, seconds: float) -> tuple[int, list[aiohttp.ClientResponse]]:
    """Ask three gateways all the time; return how many were answered and the refusals."""
    answered, refused = 0, []
    end = time.monotonic() + seconds
    headers = {"Authorization": f"Bearer {key}"}

    async def ask(session: aiohttp.ClientSession, gateway: Cluster) -> None:
        nonlocal answered
        while time.monotonic() < end:
            async with session.post(f"{gateway.origin}/v1/chat/completions", json=MODEL) as response:
                await response.read()
            if response.status == 200:
                answered += 1
            else:
                refused.append(response)

    async with aiohttp.ClientSession(headers=headers) as session:
        await asyncio.gather(*(ask(session, gateway) for gateway in gateways for _ in range(3)))
    return answered, refused


@pytest.mark.requirement("promise:P18")
async def test_three_gateways_let_a_key_have_its_limit_and_tell_it_when_to_come_back(
    cluster: Cluster, gateways: Sequence[Cluster]
) -> None:
    key = make_key(cluster, requests_per_minute=LIMIT)
    began = time.monotonic()
    answered, refused = await press(gateways, key, SECONDS)
    elapsed_s = time.monotonic() - began
    burst = LIMIT / 60 * BURST_S
    assert burst <= answered <= burst + 1.05 * LIMIT / 60 * elapsed_s + 0.05 * burst
    assert refused
    for response in refused:
        assert response.status == 429
        assert response.headers["Retry-After"] == "1"
        assert response.headers["x-ratelimit-limit-requests"] == str(LIMIT)
        assert response.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.requirement("promise:P18")
def test_retry_after_is_right_within_a_second_whichever_gateway_is_asked(
    cluster: Cluster, gateways: Sequence[Cluster]
) -> None:
    key = make_key(cluster, requests_per_minute=18)
    while (told := gateways[0].call("/v1/chat/completions", MODEL, key=key)).status == 200:
        continue
    began = time.monotonic()
    assert (told.status, told.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    until(lambda: gateways[2].call("/v1/chat/completions", MODEL, key=key).status == 200)
    assert time.monotonic() - began == pytest.approx(int(told.headers["Retry-After"]), abs=1)


def test_an_answer_says_what_is_left(cluster: Cluster) -> None:
    key = make_key(cluster, requests_per_minute=60, tokens_per_minute=60_000)
    reply = cluster.call("/v1/chat/completions", {**MODEL, "max_tokens": 100}, key=key)
    headers = {name.lower(): value for name, value in reply.headers.items() if name.lower().startswith("x-ratelimit")}
    assert reply.status == 200
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "9"
    assert headers["x-ratelimit-limit-tokens"] == "60000"
    assert 9800 < int(headers["x-ratelimit-remaining-tokens"]) < 10_000
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert "x-ratelimit-limit-requests" not in cluster.call("/v1/chat/completions", MODEL).headers


def test_a_key_with_one_turn_at_once_can_have_them_one_after_the_other_at_any_gateway(
    cluster: Cluster, gateways: Sequence[Cluster]
) -> None:
    key = make_key(cluster, concurrent_turns=1)
    for _ in range(3):
        assert gateways[0].call("/v1/chat/completions", MODEL, key=key).status == 200
    ended = time.monotonic()
    until(lambda: gateways[1].call("/v1/chat/completions", MODEL, key=key).status == 200)
    assert time.monotonic() - ended < 5
