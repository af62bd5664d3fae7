"""The OpenAI SDK for Python at a limit of this server's: it waits as it is told, and then succeeds."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from clients import prompts
from clients.prompts import MODEL, user
from cluster import Cluster

PER_MINUTE = 30
BURST = 5
"""Requests that may come at once: those of ten seconds."""
LONGEST_S = 2
"""Until there is room for another."""


def limited_key(cluster: Cluster) -> str:
    made = cluster.verb("keys", "create", "--scope", "chat", "--limit-requests", str(PER_MINUTE), "--json")
    return str(json.loads(made)["key"])


def ask_without_patience(sdk: openai.OpenAI) -> None:
    hasty = sdk.with_options(max_retries=0)
    for _ in range(BURST + 1):
        hasty.chat.completions.create(model=MODEL, messages=user(prompts.COUNT))


@pytest.mark.client("openai-python", openai.__version__)
@pytest.mark.case("limits of a key")
@pytest.mark.requirement("clients:waits-out-a-429")
def test_requests_over_a_keys_limit_wait_as_told_and_then_succeed(cluster: Cluster) -> None:
    with openai.OpenAI(base_url=f"{cluster.origin}/v1", api_key=limited_key(cluster)) as sdk:

        def ask(_: int) -> int:
            raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=user(prompts.COUNT))
            assert raw.parse().choices[0].message.content == prompts.COUNTED
            return raw.retries_taken

        with ThreadPoolExecutor(BURST + 1) as clients:
            retries = sorted(clients.map(ask, range(BURST + 1)))
        assert retries[:BURST] == [0] * BURST
        assert retries[-1] == 1, "one wait was enough"
        with pytest.raises(openai.RateLimitError) as caught:
            ask_without_patience(sdk)
    headers = caught.value.response.headers
    assert caught.value.code == "rate_limit_exceeded"
    assert 1 <= int(headers["retry-after"]) <= LONGEST_S
    assert headers["x-ratelimit-limit-requests"] == str(PER_MINUTE)
    assert headers["x-ratelimit-remaining-requests"] == "0"
