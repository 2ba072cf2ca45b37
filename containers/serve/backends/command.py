"""Engines that are programs of their own: vLLM, SGLang and TensorRT-LLM, behind this API and reachable by it alone.

Each is started as a child, spoken to over OpenAI's text completions with token ids (the template and the tokenizer stay
on this side), and ended with the service; one that ends by itself takes the service with it.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from typing import Any

import httpx

from containers.contract import StageError
from containers.serve.backends.completions import events, pieces, reason_of
from containers.serve.backends.programs import Program, Start
from containers.serve.bundle import Served
from containers.serve.contract import ServeConfig
from containers.serve.jobs import EngineError, Hear, Job
from containers.sockets import SOCKETS, free_port

LOADING_SECONDS = 1800
END_SECONDS = 20


class Command:
    """A running engine."""

    certain = False

    def __init__(self, engine: Program, program: str, served: Served, config: ServeConfig, context: int) -> None:
        """Start it and wait until it is ready; raises StageError when it ends before."""
        self._private = tempfile.mkdtemp(prefix="slipway-", dir=SOCKETS)
        start = Start(
            program, served.model, served.manifest.name, context, config.slots,
            f"{self._private}/engine.sock", free_port(), secrets.token_hex(16),
        )  # fmt: skip
        self._engine, self._name, self._stops = engine.executable, start.name, list(served.manifest.stop_ids)
        self._closing = False
        self._client = client_of(start, engine, config.slots)
        self._process = launch([*engine.command(start), *config.engine_options])
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._watch, daemon=True).start()

    def _wait(self) -> None:
        deadline = time.monotonic() + LOADING_SECONDS
        while time.monotonic() < deadline:
            if (code := self._process.poll()) is not None:
                raise StageError(f"{self._engine} ended with exit code {code} before it was ready: see its lines above")
            try:
                if self._client.get("/health").is_success:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(0.2)
        raise StageError(f"{self._engine} was not ready after {LOADING_SECONDS} s")

    def _watch(self) -> None:
        """End the service when the engine ends by itself: whoever runs it starts both again."""
        self._process.wait()
        if not self._closing:
            os.kill(os.getpid(), signal.SIGTERM)

    def answer(self, index: int, job: Job, hear: Hear) -> None:
        """See Backend; leaving the stream tells the engine to stop."""
        try:
            with self._client.stream("POST", "/v1/completions", json=self._asked(job)) as response:
                if not response.is_success:
                    hear(EngineError(reason_of(response.read()), response.status_code))
                    return
                for piece in pieces(events(response.iter_lines()), index):
                    if hear(piece):
                        return
        except httpx.TransportError as error:
            hear(EngineError(f"{self._engine} did not answer: {error}", 500))

    def _asked(self, job: Job) -> dict[str, Any]:
        """Return a job in OpenAI's words."""
        sampling = dict(job.sampling)
        body: dict[str, Any] = {"model": self._name, "prompt": job.ids, "stop_token_ids": self._stops}
        if (top := sampling.pop("n_probs", None)) is not None:
            body["logprobs"] = top
        if schema := sampling.pop("json_schema", None):
            plain = {name: value for name, value in schema.items() if name != "x-guidance"}
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": plain}}
        return {**body, **sampling, "stream": True, "stream_options": {"include_usage": True}}

    def close(self) -> None:
        """End the engine and everything that it started."""
        self._closing = True
        self._client.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)
                try:
                    self._process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        shutil.rmtree(self._private, ignore_errors=True)


def launch(command: list[str]) -> subprocess.Popen[bytes]:
    """Start an engine in a group of its own, without this service's settings; on Linux it ends with this process."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLIPWAY_")}
    environment |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    mourning = shutil.which("setpriv")
    tied = [mourning, "--pdeathsig", "TERM", *command] if mourning else command
    return subprocess.Popen(tied, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


def client_of(start: Start, engine: Program, slots: int) -> httpx.Client:
    """Return what speaks to the engine; an answer may take as long as it takes, the deadline is kept elsewhere."""
    limits = httpx.Limits(max_connections=slots + 1)
    patience = httpx.Timeout(None, connect=5)
    if engine.lock == "socket":
        transport = httpx.HTTPTransport(uds=start.socket, limits=limits)
        return httpx.Client(transport=transport, base_url="http://engine", timeout=patience)
    headers = {"Authorization": f"Bearer {start.key}"} if engine.lock == "key" else {}
    address = f"http://127.0.0.1:{start.port}"
    return httpx.Client(base_url=address, headers=headers, limits=limits, timeout=patience, trust_env=False)
