"""The command lines of vLLM, SGLang and TensorRT-LLM."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Start:
    """What a command line is made of: the program, the model, where to listen, and how much at once."""

    program: str
    model: Path
    name: str
    context: int
    slots: int
    socket: str
    port: int
    key: str


@dataclass(frozen=True)
class Program:
    """An engine: the program it is called by, its command line, and what locks its listener."""

    executable: str
    command: Callable[[Start], list[str]]
    lock: str
    """socket: a Unix socket in a private folder; key: a loopback port that asks for a key; port: a loopback port."""


def vllm(start: Start) -> list[str]:
    """Return vLLM's command line; without whitespace a small model cannot spend an answer's tokens on it."""
    return [
        start.program, "serve", str(start.model), "--uds", start.socket, "--served-model-name", start.name,
        "--max-model-len", str(start.context), "--max-num-seqs", str(start.slots), "--max-logprobs", "20",
        "--generation-config", "vllm", "--disable-uvicorn-access-log",
        "--structured-outputs-config", '{"backend": "guidance", "disable_any_whitespace": true}',
    ]  # fmt: skip


def sglang(start: Start) -> list[str]:
    """Return SGLang's command line."""
    return [
        start.program, "serve", "--model-path", str(start.model), "--host", "127.0.0.1", "--port", str(start.port),
        "--api-key", start.key, "--served-model-name", start.name, "--context-length", str(start.context),
        "--max-running-requests", str(start.slots), "--sampling-defaults", "openai",
    ]  # fmt: skip


def tensorrt_llm(start: Start) -> list[str]:
    """Return TensorRT-LLM's command line."""
    return [
        start.program, "serve", str(start.model), "--host", "127.0.0.1", "--port", str(start.port),
        "--served_model_name", start.name, "--max_seq_len", str(start.context), "--max_batch_size", str(start.slots),
    ]  # fmt: skip


PROGRAMS = {
    "vllm": Program("vllm", vllm, "socket"),
    "sglang": Program("sglang", sglang, "key"),
    "tensorrt-llm": Program("trtllm-serve", tensorrt_llm, "port"),
}
