"""An OpenAI-compatible endpoint: several questions at once, bounded retries with back-off, clear words on failure."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from containers.contract import StageError
from containers.judges.config import EndpointJudgeConfig
from containers.speaking import Reply

BUSY = (408, 409, 425, 429)
REFUSED = (400, 413, 422)
"""An endpoint's word on one question (too long, say), not on all."""
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.5, 60.0
Question = dict[str, Any]
"""`model`, `messages` and `parameters`."""


class Endpoint:
    """Where questions are put."""

    def __init__(self, config: EndpointJudgeConfig, key: str) -> None:
        """Send `key` with every question, unless it is empty."""
        self.config = config
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.refusals: list[str] = []
        """Why questions were refused."""

    def ask_all(self, questions: Sequence[Question], heard: Callable[[Question, Reply | None], None]) -> None:
        """Put every question; `heard` gets each with its reply (None: refused) as it comes. Raises StageError."""
        asyncio.run(self.ask_at_once(questions, heard))

    async def ask_at_once(self, questions: Sequence[Question], heard: Callable[[Question, Reply | None], None]) -> None:
        """Keep `concurrency` questions under way until all are put; raises StageError."""
        import httpx

        room = asyncio.Semaphore(self.config.concurrency)
        limits = httpx.Limits(max_connections=self.config.concurrency)
        address = self.config.url.rstrip("/") + "/"

        async def ask(client: httpx.AsyncClient, question: Question) -> None:
            async with room:
                heard(question, await self.put(client, question))

        async with httpx.AsyncClient(
            base_url=address, headers=self.headers, timeout=self.config.timeout_seconds, limits=limits
        ) as client:
            await asyncio.gather(*(ask(client, question) for question in questions))

    async def put(self, client: Any, question: Question) -> Reply | None:
        """Put one question until there is a reply, or a refusal (None); raises StageError."""
        import httpx

        body = {"model": question["model"], "messages": question["messages"], **question["parameters"]}
        problem, wanted = "", 0.0
        for attempt in range(self.config.max_attempts):
            if attempt:
                await asyncio.sleep(min(max(FIRST_DELAY_SECONDS * 2 ** (attempt - 1), wanted), LONGEST_DELAY_SECONDS))
            try:
                response = await client.post("chat/completions", json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__} {error}".strip()
                continue
            if response.status_code == 200:
                return reply_in(response, client.base_url)
            problem, wanted = f"HTTP {response.status_code} {response.text[:300]}", wait_in(response)
            if response.status_code in REFUSED:
                self.refusals.append(problem)
                return None
            if response.status_code not in BUSY and response.status_code < 500:
                break
        raise StageError(
            f"the judge at {client.base_url} does not answer ({problem}): check judge.url, judge.model and its key. "
            "What it answered so far is kept: run again to go on"
        )


def reply_in(response: Any, address: Any) -> Reply:
    """Return the reply that an endpoint's body holds; raises StageError where it is not of OpenAI's shape."""
    try:
        choice = response.json()["choices"][0]
        return Reply((choice["message"]["content"] or "").strip(), choice.get("finish_reason") != "length")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise StageError(f"{address} does not answer as OpenAI's chat completions do: {response.text[:200]}") from error


def wait_in(response: Any) -> float:
    """Return the seconds that an endpoint asks to wait, 0 where it names none."""
    named = response.headers.get("retry-after", "")
    return float(named) if named.replace(".", "", 1).isdecimal() else 0.0
