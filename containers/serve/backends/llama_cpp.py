"""llama.cpp in this process (xllamacpp): token ids in, text out, many conversations in one batch."""

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from containers.contract import StageError
from containers.serve.backends.turns import Turns
from containers.serve.bundle import Served
from containers.serve.contract import ServeConfig
from containers.serve.jobs import EngineError, Hear, Job, Piece
from containers.sockets import SOCKETS


class LlamaCpp:
    """A gguf in llama.cpp, with `slots` conversations of `context` tokens each, batched token by token."""

    certain = True

    def __init__(self, served: Served, config: ServeConfig, context: int) -> None:
        """Load the bundle's gguf; raises StageError when llama.cpp cannot."""
        assert served.gguf
        self._adapters, self._turns = tuple(served.adapters), Turns()
        self._server = load(served.gguf, config, context, list(served.adapters.values()))

    def answer(self, index: int, job: Job, hear: Hear) -> None:
        """See Backend: llama.cpp calls per token, and stops when it is told to."""
        asked = {**job.sampling, "prompt": job.ids, "stream": True}
        if job.forced:  # a grammar leaves the reported probabilities as they were before it
            asked["grammar"] = "root ::= " + " ".join(f"<[{token}]>" for token in job.forced)
        if self._adapters:
            # All of them, always: a request that names none would get every one, on a cache that another one filled.
            asked["lora"] = [
                {"id": number, "scale": float(name in job.adapters)} for number, name in enumerate(self._adapters)
            ]
        with self._turns.of(job.adapters):
            self._server.handle_completions(asked, lambda chunk: hear(piece_of(chunk, index)))

    def close(self) -> None:
        """Free the model."""
        del self._server


def piece_of(chunk: dict[str, Any], index: int) -> Piece | EngineError:
    """Return what one of llama.cpp's chunks says."""
    if "error" in chunk:
        return EngineError(chunk["error"]["message"], int(chunk["error"]["code"]))
    choice, usage = chunk["choices"][0], chunk.get("usage", {})
    probabilities = choice["logprobs"]
    return Piece(
        index,
        choice["text"],
        choice["finish_reason"],
        usage.get("prompt_tokens", 0),
        usage.get("completion_tokens", 0),
        probabilities["content"] if probabilities else None,
    )


def load(weights: Path, config: ServeConfig, context: int, adapters: Sequence[Path] = ()) -> Any:
    """Return a loaded `xllamacpp.Server` that nobody else can reach; `adapters` are numbered in their order.

    It insists on a listener of its own, without a key: it gets a Unix socket in a private folder, which is unlinked as
    soon as it listens. It also takes over SIGINT and SIGTERM, which belong to the web server: they are given back.
    """
    import xllamacpp

    threads = config.threads or os.cpu_count() or 1
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(file), 1.0) for file in adapters]
    params.n_parallel, params.n_ctx = config.slots, context * config.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.ui = params.endpoint_slots = params.fit_params = False
    params.cache_ram_mib, params.n_threads_http, params.verbosity = 0, 1, 1
    private = tempfile.mkdtemp(prefix="slipway-", dir=SOCKETS)
    params.hostnames = [f"{private}/engine.sock"]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        beside = "".join(f" with {file.name}" for file in adapters)
        raise StageError(
            f"llama.cpp cannot load {weights}{beside}: is it a whole gguf of a known architecture"
            f"{', and the adapters its own' if adapters else ''}?"
        ) from error
    finally:
        shutil.rmtree(private, ignore_errors=True)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
