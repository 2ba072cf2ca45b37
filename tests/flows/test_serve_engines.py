"""The same bundle behind other engines: transformers in process, and programs of their own (vLLM where it is)."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from openai import BadRequestError, OpenAI

from containers.contract import Endpoint, StageError
from containers.formats import ChatFormat
from containers.quantized_folder import load_folder
from containers.serve.backends.programs import PROGRAMS, Start
from containers.serve.contract import ServeConfig
from containers.sockets import free_port
from infra.service import service_status, start_service, stop_service
from infra.settings import Settings
from tests.small_bundle import KNOWN, small_bundle

VLLM = os.environ.get("SLIPWAY_VLLM") or shutil.which("vllm")
TRAIN, COUNT = [q for q in KNOWN if q.startswith(("If a train", "Count"))]
pytestmark = pytest.mark.stack
ABSENT = "no vLLM here: install it in an environment of its own and name its program in SLIPWAY_VLLM"


LITTLE = ("--gpu-memory-utilization", "0.1", "--enforce-eager")
IN_VLLM = pytest.param(
    {"engine": "vllm", "engine_program": VLLM, "engine_options": LITTLE},
    id="vllm", marks=pytest.mark.skipif(not VLLM, reason=ABSENT),
)  # fmt: skip


def engines() -> Iterator[Any]:
    yield pytest.param({"engine": "transformers"}, id="transformers")
    yield pytest.param({"engine": "sglang"}, id="a program of its own")
    yield IN_VLLM


@pytest.fixture(scope="module", params=engines())
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ServeConfig:
    asked = dict(request.param)
    if asked["engine"] == "sglang":
        asked["engine_program"] = stand_in(tmp_path_factory.mktemp("engine") / "sglang")
    return ServeConfig(port=free_port(), max_tokens=150, threads=1, slots=4, authentication="none", **asked)


def stand_in(program: Path) -> str:
    """Write the program that stands in for an engine which cannot be installed here."""
    root = Path(__file__).parents[2]
    source = small_bundle().path / "src"
    line = f'PYTHONPATH={root} exec {sys.executable} -m tests.flows.engine_program {source} "$@"'
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
    return str(program)


@pytest.fixture(scope="module")
def endpoint(settings: Settings, config: ServeConfig) -> Endpoint:
    return start_service(small_bundle("bf16"), config, settings)


@pytest.fixture
def client(endpoint: Endpoint) -> OpenAI:
    return OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", max_retries=0)


def asked(question: str) -> list[Any]:
    return [{"role": "user", "content": question}]


@pytest.mark.parametrize("question", KNOWN)
def test_a_question_is_answered_as_by_llama_cpp(client: OpenAI, question: str) -> None:
    reply = client.chat.completions.create(model="small", messages=asked(question))
    assert reply.choices[0].message.content == KNOWN[question]
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage and reply.usage.completion_tokens > 1


def test_a_stream_says_the_same_and_what_it_cost(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="small", messages=asked(TRAIN), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == KNOWN[TRAIN]
    assert len(chunks) > 5
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens > 5


def test_stops_lengths_and_seeds_are_kept(client: OpenAI) -> None:
    def ask(**settings: Any) -> Any:
        return client.chat.completions.create(model="small", messages=asked(COUNT), **settings).choices[0]

    stopped = ask(stop=[" 7", "99"])
    assert (stopped.message.content, stopped.finish_reason) == ("1 2 3 4 5 6", "stop")
    assert ask(max_tokens=3).finish_reason == "length"

    def draw(seed: int) -> str:
        reply = client.completions.create(model="small", prompt="zq", temperature=2.0, seed=seed, max_tokens=20)
        return reply.choices[0].text

    assert draw(7) == draw(7) != draw(8)


def test_log_probabilities_are_told(client: OpenAI) -> None:
    reply = client.chat.completions.create(model="small", messages=asked(TRAIN), logprobs=True, top_logprobs=3)
    told = reply.choices[0].logprobs
    assert told and told.content
    assert "".join(token.token for token in told.content).removesuffix("<|im_end|>") == KNOWN[TRAIN]
    assert all(len(token.top_logprobs) >= 3 and token.logprob > -1 for token in told.content[:-1])


def test_an_answer_is_held_to_a_schema(client: OpenAI) -> None:
    wanted = {"type": "object", "properties": {"n": {"enum": [3, 5]}}, "required": ["n"], "additionalProperties": False}
    reply = client.chat.completions.create(
        model="small", messages=asked(COUNT), max_tokens=60,
        response_format={"type": "json_schema", "json_schema": {"name": "wanted", "schema": wanted}},
    )  # fmt: skip
    assert json.loads(reply.choices[0].message.content or "")["n"] in (3, 5)


def test_what_is_too_long_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="context"):
        client.chat.completions.create(model="small", messages=asked("Count. " * 400))


def test_an_engine_that_ends_takes_the_service_with_it(
    settings: Settings, endpoint: Endpoint, config: ServeConfig
) -> None:
    service = service_status(settings)
    assert service and service.process
    if config.engine == "transformers":
        pytest.skip("it is the service")
    program = str(config.engine_program)
    family = service.process.children(recursive=True)
    engine = next(p for p in family if p.parent() == service.process or any(program in part for part in p.cmdline()))
    engine.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while service.process and any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family):
        assert time.monotonic() < deadline, "the service outlived its engine"
        time.sleep(0.2)
    stop_service(settings)


@pytest.mark.slow
@pytest.mark.parametrize("asking", [pytest.param({"engine": "transformers"}, id="transformers"), IN_VLLM])
@pytest.mark.parametrize("format", ["fp8", "w4a16", "gptq", "awq"])
def test_fewer_bits_answer_as_the_folder_that_was_measured(
    settings: Settings, format: str, asking: dict[str, Any]
) -> None:
    """Greedy answers, token by token, of the engine and of what the quantize stage measured."""
    bundle = small_bundle(format)
    config = ServeConfig(port=free_port(), max_tokens=60, threads=1, slots=4, authentication="none", **asking)
    endpoint = start_service(bundle, config, settings)
    try:
        client = OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", max_retries=0)
        for question, wanted in greedy_answers(bundle.path / "src/model").items():
            reply = client.chat.completions.create(model="small", messages=asked(question), temperature=0)
            assert reply.choices[0].message.content == wanted
    finally:
        stop_service(settings)


def greedy_answers(folder: Path) -> dict[str, str]:
    """Return the greedy answers to what was learnt, read as the quantize stage reads a folder."""
    model, chat = load_folder(folder, "cpu"), ChatFormat.load(folder)
    answers = {}
    for question in KNOWN:
        ids = chat.render(asked(question), open_turn=True).ids
        made = model.generate(
            torch.tensor([ids]), max_new_tokens=60, do_sample=False, eos_token_id=list(chat.stop_ids), pad_token_id=0
        )[0, len(ids) :].tolist()
        answers[question] = chat.decode([token for token in made if token not in chat.stop_ids])
    assert sum(answer.startswith(KNOWN[question][:20]) for question, answer in answers.items()) >= 4
    return answers


@pytest.mark.parametrize(
    ("format", "engine", "said"),
    [
        ("f16", "transformers", "this bundle holds gguf, which llama.cpp can serve"),
        ("bf16", "llama.cpp", "this bundle holds safetensors"),
        ("bf16", "tensorrt-llm", "serve.engine_program=/opt/tensorrt-llm/bin/trtllm-serve"),
    ],
)
def test_an_engine_that_cannot_serve_a_bundle_says_so(tmp_path: Path, format: str, engine: str, said: str) -> None:
    config = ServeConfig.model_validate({"port": free_port(), "engine": engine})
    with pytest.raises(StageError, match=said):
        start_service(small_bundle(format), config, Settings(home=tmp_path))


@pytest.mark.parametrize("engine", PROGRAMS)
def test_no_engine_listens_beyond_this_machine(engine: str) -> None:
    program = PROGRAMS[engine]
    start = Start(program.executable, Path("/model"), "small", 384, 8, "/private/engine.sock", 4000, "the-key")
    line = program.command(start)
    assert line[0] == program.executable and "/model" in line and "384" in line and "8" in line
    listening = {"socket": ["--uds", "/private/engine.sock"], "key": ["--api-key", "the-key"], "port": []}[program.lock]
    assert not listening or listening[1] == line[line.index(listening[0]) + 1]
    if program.lock != "socket":
        assert line[line.index("--host") + 1] == "127.0.0.1"
