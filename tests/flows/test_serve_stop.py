"""Shutdown under load, on a model of random weights that is slow enough to be stopped in the middle."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from containers.contract import Bundle, Endpoint
from containers.package.contract import PackageConfig, PackageInputs
from containers.serve.contract import ServeConfig
from containers.sockets import free_port
from infra.keys import local_key
from infra.service import service_status, start_service, stop_service
from infra.settings import Settings
from tests.bench.serving import random_model
from tests.small_bundle import packaged

SHAPE = {"width": 512, "layers": 8, "heads": 8, "kv_heads": 2, "inner": 1536, "vocabulary": 2048}
SLOTS = 8


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    scratch = tmp_path_factory.mktemp("random")
    inputs = PackageInputs(quantized=random_model(scratch / "model", SHAPE))
    return packaged(scratch / "package", PackageConfig(name="slow", prove_parity=False), inputs)


@dataclass
class Served:
    settings: Settings
    endpoint: Endpoint

    def body(self, tokens: int) -> dict[str, object]:
        asked = [{"role": "user", "content": "Tell me about ships."}]
        return {"model": "slow", "messages": asked, "max_tokens": tokens, "stream": True, "temperature": 0}

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {local_key(self.settings)}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        return httpx.AsyncClient(base_url=self.endpoint.url, headers=headers, limits=limits, timeout=120)


@pytest.fixture
def served(bundle: Bundle, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    settings = Settings(home=tmp_path)
    config = ServeConfig(port=free_port(), context=512, threads=1, max_tokens=480, **({"slots": SLOTS} | request.param))
    yield Served(settings, start_service(bundle, config, settings))
    stop_service(settings)


@dataclass
class Told:
    """What one client saw."""

    status: int
    text: bytes

    @property
    def ended_well(self) -> bool:
        return self.status == 200 and self.text.endswith(b"data: [DONE]\n\n")


async def ask(client: httpx.AsyncClient, body: dict[str, object]) -> Told:
    response = await client.post("/v1/chat/completions", json=body)
    return Told(response.status_code, response.content)


@pytest.mark.slow
@pytest.mark.parametrize("served", [{}], indirect=True)
def test_ten_streams_end_when_the_service_is_told_to_stop(served: Served) -> None:
    told, seconds = asyncio.run(stopped_while(served, streams=10, tokens=200))
    print(f"\nten streams ended in {seconds:.1f} s")
    assert all(t.ended_well for t in told)
    assert seconds <= 30
    assert_gone(served)


@pytest.mark.parametrize("served", [{"drain_seconds": 1}], indirect=True)
def test_what_takes_too_long_to_drain_is_cut_with_a_word(served: Served) -> None:
    told, seconds = asyncio.run(stopped_while(served, streams=10, tokens=480))
    assert seconds <= 15
    cut = [t for t in told if not t.ended_well]
    assert cut
    for t in cut:
        last = json.loads(t.text.split(b"data: ")[-1])
        assert last["error"]["message"] == "the server is shutting down"
    assert_gone(served)


@pytest.mark.parametrize("served", [{}], indirect=True)
def test_headers_leave_before_the_first_token(served: Served) -> None:
    words = "ships " * 60

    async def first_tokens_when_headers_came() -> float:
        body = served.body(8) | {"messages": [{"role": "user", "content": words}]}
        async with served.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200
            seen = await metric(client, "slipway_time_to_first_token_seconds_count")
            assert (await response.aread()).endswith(b"data: [DONE]\n\n")
            assert await metric(client, "slipway_time_to_first_token_seconds_count") == 1
            return seen

    assert asyncio.run(first_tokens_when_headers_came()) == 0


@pytest.mark.parametrize("served", [{"slots": 1, "drain_seconds": 1}], indirect=True)
def test_who_is_answered_hears_of_the_end_in_the_stream_and_who_waits_by_a_status(served: Served) -> None:
    told, _ = asyncio.run(stopped_while(served, streams=2, tokens=480))
    waiting, answered = sorted(told, key=lambda t: t.text.startswith(b"data: "))
    assert (waiting.status, answered.status) == (503, 200)
    for text in (waiting.text, answered.text.split(b"data: ")[-1]):
        assert json.loads(text)["error"]["message"] == "the server is shutting down"


async def stopped_while(served: Served, streams: int, tokens: int) -> tuple[list[Told], float]:
    """Begin streams, send SIGTERM once all run or wait; return what they saw, and how long they took from there."""
    service = service_status(served.settings)
    assert service is not None
    async with served.client() as client:
        tasks = [asyncio.create_task(ask(client, served.body(tokens))) for _ in range(streams)]
        while await metric(client, "slipway_num_requests") < streams:
            await asyncio.sleep(0.02)
        began = time.perf_counter()
        os.kill(service.pid, signal.SIGTERM)
        told = await asyncio.gather(*tasks)
    return told, time.perf_counter() - began


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def assert_gone(served: Served) -> None:
    """The process ends by itself once the last answer is out."""
    deadline = time.monotonic() + 10
    while service_status(served.settings):
        assert time.monotonic() < deadline, "the process stays"
        time.sleep(0.1)
