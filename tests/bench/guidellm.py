"""Serving as GuideLLM sees it: the service, and llama.cpp's own HTTP server, asked the same by the same program.

    python -m tests.bench.guidellm

Both hold the same weights with the same slots, context and threads, and answer one prompt as text, greedy and streamed,
at 1, 8 and 32 streams. They take turns; while one is asked, the other is idle. GuideLLM gets an environment of its own.
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
from infra.embedded import free_port
from tests.bench import cache_of
from tests.bench.serving import CONTEXT, FIRST_TOKEN_GOAL, GOAL, PROMPT, QWEN, STREAMS, TOY, random_model, served

GUIDELLM = "guidellm==0.8.1"
QUIET = {"HF_HUB_OFFLINE": "1", "GUIDELLM__LOGGING__CONSOLE_LOG_LEVEL": "ERROR"}
ROUNDS = 3
REQUESTS = {1: 10, 8: 24, 32: 64}
TOKENS = {"qwen2-0.5b": 48, "toy": 200}
"""Length of each answer."""


def main() -> int:
    """Print a table of both models; return 1 where the larger one misses a goal."""
    print(f"{GUIDELLM}: tokens per second and time to the first token, medians of {ROUNDS} rounds in turn")
    print(f"{'model':12} {'streams':>8} {'llama.cpp':>10} {'service':>10} {'ratio':>7} {'first ms':>9} {'service':>9}")
    missed = False
    for name, shape in (("qwen2-0.5b", QWEN), ("toy", TOY)):
        with tempfile.TemporaryDirectory() as scratch:
            met = compare(name, shape, Path(scratch))
        missed = missed or (name != "toy" and not met)
    return int(missed)


def compare(name: str, shape: dict[str, int], scratch: Path) -> bool:
    """Measure one model on both sides; return whether the goals are met."""
    quantized = random_model(scratch / "model", shape)
    config = ServeConfig(port=free_port(), slots=max(STREAMS), context=CONTEXT, threads=os.cpu_count())
    with served(name, quantized, config, scratch) as (endpoint, key), raw(quantized, config) as address:
        (scratch / "prompts.json").write_text(json.dumps([{"prompt": PROMPT}] * max(REQUESTS.values())))
        sides = [
            Asked(url, code, name, quantized.path, scratch) for url, code in ((address, "none"), (endpoint.url, key))
        ]
        met = [line(name, streams, sides) for streams in STREAMS]
    return all(met)


def line(name: str, streams: int, sides: list["Asked"]) -> bool:
    """Ask both sides in turn at as many streams, print a line of the table, return whether the goals are met."""
    turns = [tuple(side.measure(streams) for side in sides) for _ in range(ROUNDS)]
    ratio = statistics.median(service[0] / other[0] for other, service in turns)
    late = statistics.median(service[1] - other[1] for other, service in turns)
    raw_rate, rate, raw_first, first = (
        statistics.median(turn[side][what] for turn in turns) for what in (0, 1) for side in (0, 1)
    )
    print(
        f"{name:12} {streams:8} {raw_rate:10.1f} {rate:10.1f} {ratio:7.3f} {raw_first * 1e3:9.2f} {first * 1e3:9.2f}",
        flush=True,
    )
    return ratio >= GOAL and (streams > 1 or late <= FIRST_TOKEN_GOAL)


@dataclass(frozen=True)
class Asked:
    """A server that GuideLLM asks."""

    url: str
    key: str
    model: str
    tokenizer: Path
    scratch: Path

    def measure(self, streams: int) -> tuple[float, float]:
        """Return (tokens per second of all streams, median seconds to the first token) of one round."""
        told = self.scratch / "told.json"
        backend = {
            "kind": "openai_http", "target": self.url, "model": self.model, "api_key": self.key, "http2": False,
            "request_format": "/v1/completions", "max_tokens": TOKENS[self.model], "validate_backend": False,
            "extras": {"body": {"temperature": 0}},
        }  # fmt: skip
        command = [
            program(), "run", "--disable-console", "--backend", json.dumps(backend),
            "--profile", f"kind=concurrent,streams={streams}", "--tokenizer", f"kind=hf_auto,model={self.tokenizer}",
            "--constraint", f"kind=max_requests,count={REQUESTS[streams]}",
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
