"""A gguf read by the engine that will serve it: llama.cpp's own probabilities of a given text.

llama.cpp's server has no log-probabilities of a prompt. It has a grammar over token ids, and it reports probabilities
from before the grammar: a grammar that allows one sequence only makes it "generate" the held-out text, and say at each
token how likely that was and what it would have picked itself.
"""

import http.client
import json
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp

from containers.contract import StageError
from containers.quantize.footprint import SLOTS, settings_of
from containers.quantize.measuring import TOP, Passage, Reading
from containers.sockets import SOCKETS

UNDERFLOW = 104.0
"""Nats of the least probability that fp32 holds; llama.cpp reports the lowest float for one below."""


class Unfit(StageError):
    """llama.cpp cannot load this file, or makes no numbers of it."""


class Engine:
    """llama.cpp in this process, with no port: its listener is a socket in a private folder."""

    def __init__(self, file: Path, context: int, threads: int) -> None:
        """Load the gguf `file` with room for `context` tokens in each of 4 slots; raises Unfit."""
        self._folder = tempfile.TemporaryDirectory(prefix="engine-", dir=SOCKETS)
        self._socket = f"{self._folder.name}/llama.sock"
        settings = settings_of(file, context + 8, threads, self._socket)
        # The server takes these two signals for itself; they belong to the stage.
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._server = xllamacpp.Server(settings)
        except RuntimeError as error:
            self._folder.cleanup()
            raise Unfit(f"llama.cpp cannot load {file.name}: {error}") from error
        finally:
            if threading.current_thread() is threading.main_thread():
                for number, handler in handlers.items():
                    signal.signal(number, handler)

    def __enter__(self) -> "Engine":
        """Use it in a `with` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the model."""
        del self._server
        self._folder.cleanup()

    def read(self, passages: list[Passage], told: Callable[[int], None]) -> Reading:
        """Return nats and picks at every counted token, in order; `told` hears how many passages are done."""
        readings = []
        with ThreadPoolExecutor(SLOTS) as threads:
            for reading in threads.map(self._read, passages):
                readings.append(reading)
                told(len(readings))
        return Reading.joined(readings)

    def answer_all(self, asked: Sequence[tuple[list[int], int]]) -> list[list[int]]:
        """Return the greedy continuation of each (ids, limit), up to a stop token."""
        with ThreadPoolExecutor(SLOTS) as threads:
            return list(threads.map(self.answer, *zip(*asked, strict=True))) if asked else []

    def answer(self, ids: list[int], limit: int) -> list[int]:
        """Return the greedy continuation of `ids`, at most `limit` tokens."""
        return [token["id"] for token in self._asked({"prompt": ids, "max_tokens": limit})]

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text as llama.cpp's own tokenizer has them; special tokens in it stay text."""
        line = http.client.HTTPConnection("localhost")
        line.sock = socket.socket(socket.AF_UNIX)
        line.sock.connect(self._socket)
        asked = {"content": text, "add_special": False, "parse_special": False}
        line.request("POST", "/tokenize", json.dumps(asked), {"Content-Type": "application/json"})
        found: list[int] = json.loads(line.getresponse().read())["tokens"]
        line.close()
        return found

    def _read(self, passage: Passage) -> Reading:
        """Read one passage, run by run of counted tokens; what comes before a run is its prompt."""
        nats, top, logs = [], [], []
        for first, last in passage.runs:
            only = "root ::= " + " ".join(f"<[{token}]>" for token in passage.ids[first:last])
            asked = {"prompt": passage.ids[:first], "max_tokens": last - first, "grammar": only, "logprobs": TOP}
            for token in self._asked(asked):
                if token["logprob"] is None:
                    raise Unfit("llama.cpp makes no numbers of it: a probability is NaN")
                nats.append(min(-token["logprob"], UNDERFLOW))
                top.append([likely["id"] for likely in token["top_logprobs"]])
                logs.append([likely["logprob"] for likely in token["top_logprobs"]])
        return Reading(np.array(nats), np.array(top, dtype=np.int64), np.array(logs))

    def _asked(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Return what llama.cpp says of each token that it makes."""
        settings = {"temperature": 0, "logprobs": 1, "cache_prompt": False}
        answer = self._server.handle_completions({**settings, **asked})
        if "error" in answer:
            raise RuntimeError(f"llama.cpp: {answer['error']}")
        found: list[dict[str, Any]] = (answer["choices"][0]["logprobs"] or {}).get("content", [])
        return found
