"""Any OpenAI-compatible endpoint over HTTP, always streaming.

A try is repeated only before its first delta, where whoever calls lets it, and never sooner than the upstream asked.
The credentials are the catalog's: nothing of the client's travels. What one try does is `openai_exchange`'s business.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Final

import aiohttp
import msgspec
import structlog

from kitemesh_contracts.content import Sampling
from kitemesh_contracts.errors import ErrorCode, ProviderFailed
from kitemesh_model_runner.openai_chunks import AnswerReader
from kitemesh_model_runner.openai_exchange import Broken, Exchange, Patience
from kitemesh_model_runner.openai_wire import TokenLimit, render
from kitemesh_model_runner.provider import SENTENCES, Generated, ModelCall, ModelMissing, Prefix, Sink, failure
from kitemesh_model_runner.retries import PATIENCE_S, pause_s
from kitemesh_model_runner.usage import count_as_said
from kitemesh_runtime.catalog import OpenAIProvider
from kitemesh_runtime.clock import Clock
from kitemesh_runtime.prompt_sizes import tokens

# OpenAI's own reasoning models refuse the older name of the bound, which is the only one that some other servers know.
_NEWER_HOST: Final = re.compile(r"https://(api\.openai\.com|[^/@]+\.openai\.azure\.com)(:\d+)?(/|\Z)")

log: Final = structlog.get_logger()


def open_session() -> aiohttp.ClientSession:
    """Open the session that all endpoints share: no bound on connections, no cookies, no proxy, no decompression."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "kitemesh",
        },
    )


class OpenAIEndpoint:
    """One endpoint of the catalog.

    Args:
        name: The provider's name in the catalog.
        chance: Uniform in [0, 1).

    """

    kind: Final = "openai"

    def __init__(
        self,
        name: str,
        config: OpenAIProvider,
        session: aiohttp.ClientSession,
        *,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._name: Final = name
        self._config: Final = config
        self._session: Final = session
        self._clock: Final = clock
        self._chance: Final = chance
        self._url: Final = config.base_url.rstrip("/") + "/chat/completions"
        # For the log: without what a user may have put before it, and without parsing what may be no URL at all.
        self._host: Final = config.base_url.partition("://")[2].partition("/")[0].rpartition("@")[2]
        self._connect: Final = aiohttp.ClientTimeout(total=None, connect=config.connect_timeout_s)
        newer = _NEWER_HOST.match(config.base_url) is not None
        self._token_limit: Final[TokenLimit] = "max_completion_tokens" if newer else "max_tokens"
        # OpenAI's own models never show their reasoning; who shows it may want it back between two calls.
        self._takes_reasoning: Final = not newer

    def can_continue(self, prefix: Prefix) -> bool:
        """Tell whether there is text to go on with and no reasoning, which endpoints do not take for said."""
        return bool(prefix.text) and not prefix.reasoning

    async def generate(self, call: ModelCall, sink: Sink) -> Generated:
        """Generate once, trying again before the first delta where that may help."""
        config = self._config
        now = asyncio.get_running_loop().time
        began_at = now()
        patience = Patience(
            self._connect,
            config.first_token_timeout_s,
            config.silence_timeout_s,
            began_at + config.total_timeout_s,
        )
        retry_until = began_at + min(config.total_timeout_s, call.budget_s)
        begun = "" if call.prefix is None else call.prefix.text
        said = tokens(len(begun))
        body = render(
            call.model,
            call.messages,
            _less(call.sampling, said),
            token_limit=self._token_limit,
            tools=call.tools,
            tool_choice=call.tool_choice,
            parallel_calls=call.parallel_calls,
            begun=begun,
            files=call.files,
            reasoning=self._takes_reasoning,
        )
        headers = self._headers()
        tries = 0
        while True:
            tries += 1
            reader = AnswerReader(call.turn, call.step, choices=call.sampling.choices, logprobs=call.sampling.logprobs)
            exchange = Exchange(reader, sink, patience, self._clock)
            try:
                end = await exchange.run(self._session, self._url, body, headers)
            except Broken as broken:
                failed = _failure(broken)
                pause = pause_s(tries, broken.retry_after_s, chance=self._chance())
                may = broken.again and tries <= config.retries and pause <= PATIENCE_S and now() + pause < retry_until
                again = may and call.again(failed)
                log.warning(
                    "upstream.retried" if again else "upstream.failed",
                    provider=self._name,
                    turn=call.turn,
                    code=broken.code,
                    status=broken.status,
                    host=self._host,
                    reason=type(broken.__cause__).__name__ if broken.__cause__ else None,
                    tries=tries,
                )
                if not again:
                    raise failed from broken
            else:
                if said and end.usage is not None:
                    return end._replace(usage=count_as_said(end.usage, said))
                return end
            await asyncio.sleep(pause)

    def _headers(self) -> dict[str, str]:
        secret = self._config.api_key
        if secret is None:
            return {}
        # Read anew for each call, so that a rotated key needs no restart.
        key = secret.read()
        if key is None or not (key.isascii() and key.isprintable()):
            log.error("upstream.key_missing", provider=self._name)
            raise failure(ErrorCode.UPSTREAM_REFUSED)
        return {"Authorization": f"Bearer {key}"}


def _failure(broken: Broken) -> ProviderFailed:
    if broken.model_missing:
        return ModelMissing(broken.code, SENTENCES[broken.code])
    return failure(broken.code, retry_after_s=broken.retry_after_s)


def _less(sampling: Sampling, said: int) -> Sampling:
    """Return the sampling of what is left of an answer."""
    if not said or sampling.max_tokens is None:
        return sampling
    return msgspec.structs.replace(sampling, max_tokens=max(1, sampling.max_tokens - said))
