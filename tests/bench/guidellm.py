"""Serving as GuideLLM sees it: the service, and llama.cpp's own HTTP server, asked the same by the same program.

    python -m tests.bench.guidellm

Both hold the same weights with the same slots, context and threads, and answer one prompt as text, greedy and streamed,
at 1, 8 and 32 streams. They take turns; while one is asked, the other is idle. First tokens are asked for one at a
time, of many short answers, because one of them says little: each differs from the next by more than the goal.
GuideLLM gets an environment of its own.
"""

import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from containers.contract import Quantized
from containers.serve.contract import ServeConfig
from containers.sockets import free_port
from tests.bench import cache_of
from tests.bench.serving import CONTEXT, FIRST_TOKEN_GOAL, GOAL, PROMPT, QWEN, STREAMS, TOY, random_model, served

GUIDELLM = "guidellm==0.8.1"
QUIET = {"HF_HUB_OFFLINE": "1", "GUIDELLM__LOGGING__CONSOLE_LOG_LEVEL": "ERROR"}
ROUNDS = 3
REQUESTS = {1: 10, 8: 24, 32: 64}
TOKENS = {"qwen2-0.5b": 48, "toy": 200}
"""Length of each answer where tokens per second are measured."""
FIRST_ROUNDS, FIRST_REQUESTS, FIRST_TOKENS = 9, 24, 4
"""The same for the time to the first token."""


def main() -> int:
    """Print a table of both models; return 1 where the larger one misses a goal."""
    print(f"{GUIDELLM}, medians: tokens per second, {ROUNDS} rounds in turn; ms to the first token, {FIRST_ROUNDS}")
    print(f"{'model':12} {'streams':>8} {'llama.cpp':>10} {'service':>10} {'ratio':>7}")
    missed = False
    for name, shape in (("qwen2-0.5b", QWEN), ("toy", TOY)):
        with tempfile.TemporaryDirectory() as scratch:
            ratios, added = compare(name, shape, Path(scratch))
        missed = missed or (name != "toy" and (min(ratios) < GOAL or added > FIRST_TOKEN_GOAL))
    print(f"goals on qwen2-0.5b, {GOAL} and {FIRST_TOKEN_GOAL * 1e3:g} ms more: {'missed' if missed else 'met'}")
    return int(missed)


def compare(name: str, shape: dict[str, int], scratch: Path) -> tuple[list[float], float]:
    """Measure one model on both sides; return the ratios and the seconds added to the first token."""
    quantized = random_model(scratch / "model", shape)
    config = ServeConfig(port=free_port(), slots=max(STREAMS), context=CONTEXT, threads=os.cpu_count())
    with served(name, quantized, config, scratch) as (endpoint, key), raw(quantized, config) as address:
        (scratch / "prompts.json").write_text(json.dumps([{"prompt": PROMPT}] * max(REQUESTS.values())))
        sides = [
            Asked(url, code, name, quantized.path, scratch) for url, code in ((address, "none"), (endpoint.url, key))
        ]
        return [rates(name, streams, sides) for streams in STREAMS], first_tokens(name, sides)


def rates(name: str, streams: int, sides: list["Asked"]) -> float:
    """Ask both sides in turn at as many streams, print a line, return the ratio of tokens per second."""
    turns = [[side.measure(streams, REQUESTS[streams], TOKENS[name])[0] for side in sides] for _ in range(ROUNDS)]
    ratio = statistics.median(service / other for other, service in turns)
    other, service = (statistics.median(column) for column in zip(*turns, strict=True))
    print(f"{name:12} {streams:8} {other:10.1f} {service:10.1f} {ratio:7.3f}", flush=True)
    return ratio


def first_tokens(name: str, sides: list["Asked"]) -> float:
    """Ask both sides in turn, print a line, return how much later the service's first token comes (seconds)."""
    turns = [[side.measure(1, FIRST_REQUESTS, FIRST_TOKENS)[1] for side in sides] for _ in range(FIRST_ROUNDS)]
    low, added, high = statistics.quantiles((service - other for other, service in turns), n=4)
    other, service = (statistics.median(column) * 1e3 for column in zip(*turns, strict=True))
    print(
        f"{name:12} {'first ms':>8} {other:10.2f} {service:10.2f} {added * 1e3:+7.2f}"
        f" (half of the rounds: {low * 1e3:+.2f} to {high * 1e3:+.2f})",
        flush=True,
    )
    return added


@dataclass(frozen=True)
class Asked:
    """A server that GuideLLM asks."""

    url: str
    key: str
    model: str
    tokenizer: Path
    scratch: Path

    def measure(self, streams: int, requests: int, tokens: int) -> tuple[float, float]:
        """Return (tokens per second of all streams, median seconds to the first token) of one round.

        `requests` answers of `tokens` each, `streams` at a time.
        """
        told = self.scratch / "told.json"
        backend = {
            "kind": "openai_http", "target": self.url, "model": self.model, "api_key": self.key, "http2": False,
            "request_format": "/v1/completions", "max_tokens": tokens, "validate_backend": False,
            "extras": {"body": {"temperature": 0}},
        }  # fmt: skip
        command = [
            program(), "run", "--disable-console", "--backend", json.dumps(backend),
            "--profile", f"kind=concurrent,streams={streams}", "--tokenizer", f"kind=hf_auto,model={self.tokenizer}",
            "--constraint", f"kind=max_requests,count={requests}",
            "--data", f"kind=json_file,path={self.scratch}/prompts.json", "--output", f"kind=json,path={told}",
        ]  # fmt: skip
        subprocess.run(command, check=True, env=os.environ | QUIET)
        metrics = json.loads(told.read_text())["benchmarks"][0]["metrics"]
        rate, first = (metrics[name]["successful"] for name in ("output_tokens_per_second", "time_to_first_token_ms"))
        return rate["mean"], first["median"] / 1e3


@contextmanager
def raw(quantized: Quantized, config: ServeConfig) -> Iterator[str]:
    """Run llama.cpp's HTTP server in a process of its own while the block runs; give its address."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=listen, args=(quantized, config, port), daemon=True)
    process.start()
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health") as answer:
                if answer.status == 200:
                    break
            time.sleep(0.2)
        else:
            raise TimeoutError(f"llama.cpp's HTTP server does not answer at {address}")
        yield address
    finally:
        process.terminate()
        process.join()


def listen(quantized: Quantized, config: ServeConfig, port: int) -> None:
    """Serve over llama.cpp's own HTTP server until this process is ended."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(quantized.path / "model.gguf")
    params.n_parallel, params.n_ctx = config.slots, CONTEXT * config.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config.threads
    params.ui = params.endpoint_slots = params.fit_params = False
    params.cache_ram_mib, params.n_threads_http, params.verbosity = 0, config.slots + 2, 1
    params.hostnames, params.port = ["127.0.0.1"], port
    server = xllamacpp.Server(params)
    while server:
        time.sleep(1)


def program() -> str:
    """Return GuideLLM's command, installed once, beside the libraries that are here already."""
    cache = cache_of(GUIDELLM)
    command = cache / "bin/guidellm"
    if not command.exists():
        venv.create(cache, with_pip=True, clear=True)
        purelib = Path(sysconfig.get_path("purelib", "venv", {"base": str(cache), "platbase": str(cache)}))
        (purelib / "slipway.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        subprocess.run([cache / "bin/python", "-m", "pip", "install", "-q", GUIDELLM], check=True)
    return str(command)


if __name__ == "__main__":
    sys.exit(main())
