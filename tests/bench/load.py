"""Overload: four times what the service can answer, in an open loop: python -m tests.bench.load

Requests come at random moments (Poisson) whether or not earlier ones have ended, and their time to the first token
counts from the moment they were due. Capacity is what as many clients as there are slots get, each asking again once
it is answered; the base is the service at half of it.
"""

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import aiohttp

from containers.contract import Endpoint
from containers.serve.contract import ServeConfig
from containers.sockets import free_port
from tests.bench.serving import CONTEXT, QWEN, TOY, random_model, request_of, served

SLOTS, QUEUE = 8, 0
TOKENS = {"qwen2-0.5b": 16, "toy": 64}
"""Length of each answer."""
CAPACITY_SECONDS, BASE_SECONDS, OVERLOAD_SECONDS, RECOVERY_SECONDS = 15, 30, 60, 5
OVERLOAD = 4
GOAL = 2.0
"""p99 of the time to the first token under overload, of those that are let in, against the base."""


class Answer(NamedTuple):
    """What a request came to: its HTTP status (0: none), seconds until its first token and its end."""

    status: int
    first: float
    end: float


def main() -> int:
    """Print what came of each load; return 1 where the larger model misses a goal."""
    missed = False
    for name, shape in (("qwen2-0.5b", QWEN), ("toy", TOY)):
        with tempfile.TemporaryDirectory() as scratch:
            quantized = random_model(Path(scratch) / "model", shape)
            config = ServeConfig(port=free_port(), slots=SLOTS, queue=QUEUE, context=CONTEXT, threads=os.cpu_count())
            with served(name, quantized, config, Path(scratch)) as (endpoint, key):
                met = asyncio.run(measure(name, Client(endpoint, key, TOKENS[name])))
        missed = missed or (name != "toy" and not met)
    return int(missed)


async def measure(name: str, client: "Client") -> bool:
    """Put the three loads on the service, one after the other; return whether the goals are met."""
    async with client:
        await asyncio.gather(*(client.ask(time.perf_counter()) for _ in range(SLOTS)))
        capacity = await client.closed_loop(SLOTS, CAPACITY_SECONDS)
        base = show(f"{name}, half", await asyncio.gather(*await client.open_loop(capacity / 2, BASE_SECONDS)))
        asked = await client.open_loop(OVERLOAD * capacity, OVERLOAD_SECONDS)
        recovered = await client.recovered(base)
        answers = await asyncio.gather(*asked)
        over = show(f"{name}, x{OVERLOAD}", answers)
    statuses = {answer.status for answer in answers}
    print(f"{name}: capacity {capacity:.1f} answers/s, p99 ratio {over / base:.2f}, recovered in {recovered:.2f} s")
    return statuses <= {200, 429} and over <= GOAL * base and recovered <= RECOVERY_SECONDS


def show(name: str, answers: list[Answer]) -> float:
    """Print statuses and times of a load; return the 99th percentile of the time to the first token, in seconds."""
    firsts = sorted(answer.first for answer in answers if answer.status == 200)
    last = statistics.quantiles(firsts, n=100)[98]
    counts = ", ".join(f"{count} x {status}" for status, count in sorted(Counter(a.status for a in answers).items()))
    print(
        f"{name}: {counts}; first token {statistics.median(firsts) * 1e3:.0f} ms, p99 {last * 1e3:.0f} ms", flush=True
    )
    return last


class Client:
    """Asks for streams of a set length."""

    def __init__(self, endpoint: Endpoint, key: str, tokens: int) -> None:
        _, path, self.body, self.headers = request_of(endpoint, key, tokens)
        self.url = endpoint.url + path

    async def __aenter__(self) -> "Client":
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=120)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def ask(self, due: float) -> Answer:
        """Send one request that was due at `due` (of perf_counter), read its stream."""
        try:
            async with self.session.post(self.url, data=self.body, headers=self.headers) as response:
                await response.content.readany()
                first = time.perf_counter() - due
                await response.read()
                return Answer(response.status, first, time.perf_counter() - due)
        except (aiohttp.ClientError, TimeoutError):
            return Answer(0, 0.0, time.perf_counter() - due)

    async def closed_loop(self, clients: int, seconds: float) -> float:
        """Return answers per second of clients that ask again once they are answered."""
        ends = time.perf_counter() + seconds

        async def one() -> int:
            count = 0
            while time.perf_counter() < ends:
                count += (await self.ask(time.perf_counter())).status == 200
            return count

        began = time.perf_counter()
        counts = await asyncio.gather(*(one() for _ in range(clients)))
        return sum(counts) / (time.perf_counter() - began)

    async def open_loop(self, rate: float, seconds: float) -> "list[asyncio.Task[Answer]]":
        """Ask `rate` times a second on average, whatever has been answered; return what was asked, some of it open."""
        draw, asked, due = random.Random(0), [], time.perf_counter()
        ends = due + seconds
        while (due := due + draw.expovariate(rate)) < ends:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asked.append(asyncio.create_task(self.ask(due)))
        return asked

    async def recovered(self, first: float) -> float:
        """Return the seconds until a request is let in and its first token comes as early as `first`."""
        began = time.perf_counter()
        while time.perf_counter() - began < 60:
            answer = await self.ask(time.perf_counter())
            if answer.status == 200 and answer.first <= first:
                break
            await asyncio.sleep(0.05)
        return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
