"""The engine: llama.cpp in this process (xllamacpp), token ids in, text out, many conversations in one batch."""

import asyncio
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from containers.contract import StageError
from containers.serve.contract import ServeConfig
from containers.serve.metrics import CACHE, QUEUE_TIME, RUNNING, WAITING
from containers.serve.room import Room


@dataclass(frozen=True)
class Job:
    """One answer to generate. `sampling` holds llama.cpp's own names: max_tokens, temperature, top_p, seed, stop."""

    ids: list[int]
    sampling: dict[str, Any] = field(default_factory=dict)


class Piece(NamedTuple):
    """Some text of answer `index`; the last piece of an answer says why it ended and what it cost in tokens."""

    index: int
    text: str
    finish: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logprobs: list[dict[str, Any]] | None = None
    """Of each token in `text`: token, bytes, logprob, and the likeliest others. None unless the job asks."""


class EngineError(Exception):
    """The engine refused a job (`code` 400), has no room (429), failed (500), is stopping (503) or late (504)."""

    def __init__(self, message: str, code: int, retry_seconds: float | None = None) -> None:
        """Keep the HTTP status that fits, and when to come back."""
        super().__init__(message)
        self.code, self.retry_seconds = code, retry_seconds


Inbox = asyncio.Queue[Piece | EngineError]
Tell = Callable[[Piece | EngineError], Any]


class Engine:
    """llama.cpp with `slots` conversations of `context` tokens each, batched token by token."""

    def __init__(self, weights: Path, config: ServeConfig, trained_context: int) -> None:
        """Load `weights` (gguf); raises StageError when llama.cpp cannot."""
        self.context = min(config.context, trained_context)
        self.slots, self._queue, self._deadline = config.slots, config.queue, config.deadline_seconds
        self._server = load(weights, config, self.context)
        self._threads = ThreadPoolExecutor(config.slots, thread_name_prefix="answer")
        self._room = Room(config.slots)
        self._inboxes: set[Inbox] = set()
        self.stopping = False

    def close(self) -> None:
        """Wait for answers under way and free the model."""
        self._threads.shutdown(cancel_futures=True)
        del self._server

    def drain(self) -> None:
        """Take no new job; those under way go on."""
        self.stopping = True

    def cut(self) -> None:
        """End every answer under way."""
        for inbox in self._inboxes:
            inbox.put_nowait(EngineError("the server is shutting down", 503))

    def check_room(self, answers: int) -> None:
        """Raise EngineError unless `answers` more may run or wait; into an idle engine any number may."""
        if self.stopping:
            raise EngineError("the server is shutting down", 503, 1)
        under_way = self._room.taken
        if under_way and under_way + answers > self.slots + self._queue:
            raise EngineError(f"{under_way} answers run or wait: try again later", 429, self._room.seconds_to_wait())

    async def generate(self, jobs: Sequence[Job]) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of all answers as they come; raises EngineError.

        Closing the iterator (a client that went away) stops each answer at its next token.
        """
        self.check_room(len(jobs))
        self._room.enter(len(jobs))
        loop, inbox, gone = asyncio.get_running_loop(), Inbox(), threading.Event()
        tell = partial(loop.call_soon_threadsafe, inbox.put_nowait)
        late = EngineError(f"the answer was not done within {self._deadline:g} s", 504)
        alarm = loop.call_later(self._deadline, inbox.put_nowait, late)
        self._inboxes.add(inbox)
        WAITING.inc(len(jobs))
        answer = partial(self._answer, tell=tell, gone=gone, asked=time.perf_counter())
        futures = [self._threads.submit(answer, i, job) for i, job in enumerate(jobs)]
        for future in futures:
            future.add_done_callback(self._room.leave)
        try:
            unfinished = len(jobs)
            while unfinished:
                piece = await inbox.get()
                if isinstance(piece, EngineError):
                    raise piece
                unfinished -= piece.finish is not None
                yield piece
        finally:
            gone.set()
            alarm.cancel()
            self._inboxes.discard(inbox)
            WAITING.dec(sum(future.cancel() for future in futures))

    def _answer(self, index: int, job: Job, *, tell: Tell, gone: threading.Event, asked: float) -> None:
        """Generate one answer in this thread; llama.cpp calls `heard` per token and stops when it returns True."""
        ended = False

        def heard(chunk: dict[str, Any]) -> bool:
            nonlocal ended
            piece = piece_of(chunk, index)
            ended = isinstance(piece, EngineError) or piece.finish is not None
            if not gone.is_set():
                tell(piece)
            return gone.is_set()

        WAITING.dec()
        QUEUE_TIME.observe(time.perf_counter() - asked)
        share = (len(job.ids) + job.sampling.get("max_tokens", 0)) / (self.slots * self.context)
        with RUNNING.track_inprogress(), filling(share), self._room.timed():
            try:
                if not gone.is_set():
                    self._server.handle_completions({**job.sampling, "prompt": job.ids, "stream": True}, heard)
                if not ended and not gone.is_set():
                    tell(EngineError("llama.cpp stopped in the middle of an answer", 500))
            except Exception as error:
                tell(EngineError(str(error), 500))


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


@contextmanager
def filling(share: float) -> Iterator[None]:
    """Count a share of the attention cache as used."""
    CACHE.inc(share)
    try:
        yield
    finally:
        CACHE.dec(share)


def load(weights: Path, config: ServeConfig, context: int) -> Any:
    """Return a loaded `xllamacpp.Server` that nobody else can reach.

    It insists on a listener of its own, without a key: it gets a Unix socket in a private folder, which is unlinked as
    soon as it listens. It also takes over SIGINT and SIGTERM, which belong to the web server: they are given back.
    """
    import xllamacpp

    threads = config.threads or os.cpu_count() or 1
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_parallel, params.n_ctx = config.slots, context * config.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.ui = params.endpoint_slots = params.fit_params = False
    params.cache_ram_mib, params.n_threads_http, params.verbosity = 0, 1, 1
    private = tempfile.mkdtemp(prefix="slipway-")
    params.hostnames = [f"{private}/engine.sock"]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise StageError(f"llama.cpp cannot load {weights}: is it a whole gguf of a known architecture?") from error
    finally:
        shutil.rmtree(private, ignore_errors=True)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
