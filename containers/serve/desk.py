"""The desk: what every request needs, and how it becomes jobs for the engine."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from containers.contract import StageError
from containers.serve.backends.choice import load_backend
from containers.serve.bundle import MANIFEST, Served
from containers.serve.contract import ServeConfig
from containers.serve.engine import Engine
from containers.serve.errors import APIError
from containers.serve.feedback import Ledger
from containers.serve.frames import Reply
from containers.serve.jobs import Job
from containers.serve.keys import ANYONE, Keyring
from containers.serve.limits import Limits
from containers.serve.metrics import MODEL, Stopwatch
from containers.serve.requests import MAX_ANSWERS, ChatRequest, CompletionRequest
from containers.serve.schemas import held_to
from containers.serve.tool_frames import ToolReply
from containers.serve.tools import as_message, check_tools, told
from containers.signatures import Trust

Asked = ChatRequest | CompletionRequest


@dataclass(frozen=True)
class Place:
    """Where the service runs: its settings, and the files that belong to it and not to the bundle."""

    config: ServeConfig
    keys: Path | None = None
    """keys.json; None: a key is made at the start and printed."""
    feedback: Path | None = None
    """The folder that feedback is written to; None: it is refused."""
    trust: Trust | None = None
    """The signature that the bundle needs; None: it is not asked for one."""


class Desk:
    """The bundle, the engine, the keys and the limits."""

    def __init__(self, folder: Path, place: Place) -> None:
        """Open the bundle in `folder` and load its model; raises StageError."""
        self.config = place.config
        self.served = Served.open(folder, place.trust)
        self.keys = Keyring(place.keys) if self.config.authentication == "key" else None
        self.ledger = Ledger(place.feedback, self.config.feedback_per_key)
        self.limits = Limits(self.config)
        manifest = self.served.manifest
        context = min(self.config.context, manifest.context)
        self.engine = Engine(load_backend(self.served, self.config, context), self.config, context)
        for name in manifest.models:
            MODEL.labels(name, manifest.version, manifest.format).set(1)

    def owner_of(self, authorization: str) -> str:
        """Return who asks; raises APIError 401."""
        return self.keys.owner_of(authorization) if self.keys else ANYONE

    def prompts(self, request: Asked) -> list[list[int]]:
        """Return the token ids of each prompt; raises APIError."""
        return [self._chat_prompt(request)] if isinstance(request, ChatRequest) else self._text_prompts(request)

    def _chat_prompt(self, request: ChatRequest) -> list[int]:
        """Return the conversation's ids, the assistant's turn opened; control tokens typed by users stay text."""
        chat = self.served.chat
        check_tools(chat, request)
        try:
            messages = [as_message(turn) for turn in request.messages]
            return chat.render(messages, open_turn=True, tools=told(request)).ids
        except StageError as error:
            raise APIError(400, str(error), param="messages") from error

    def _text_prompts(self, request: CompletionRequest) -> list[list[int]]:
        """Return each prompt's ids, begun the way the tokenizer begins a document."""
        chat = self.served.chat
        first = chat.token_id("bos_token") if chat.names.get("add_bos_token") else None
        begun = [] if first is None else [first]
        words = chat.tokenizer.get_vocab_size()
        for prompt in request.prompts:
            if not isinstance(prompt, str) and not all(0 <= i < words for i in prompt):
                raise APIError(400, f"prompt: token ids are 0 to {words - 1} here", param="prompt")
        return [begun + chat.encode(p) if isinstance(p, str) else p for p in request.prompts]

    def jobs(self, request: Asked, prompts: list[list[int]]) -> list[Job]:
        """Return one job per prompt and choice; raises APIError when there are too many, or no room for an answer."""
        if len(prompts) * request.n > MAX_ANSWERS:
            raise APIError(400, f"a request may ask for {MAX_ANSWERS} answers at most", param="n")
        adapters = self.served.manifest.models[request.model].adapters
        limit, schema, jobs = self.config.max_tokens, held(request), []
        for ids in prompts:
            room = self.engine.context - len(ids)
            if not ids:
                raise APIError(400, "the prompt is empty", param="prompt")
            if room < 1:
                message = f"this model's context is {self.engine.context} tokens, the prompt alone has {len(ids)}"
                raise APIError(400, message, code="context_length_exceeded", param="messages")
            most = min(request.wanted or limit, limit, room)
            for number in range(request.n):
                sampling = request.drawn(number, self.config.temperature) | {"max_tokens": most} | schema
                jobs.append(Job(ids, sampling, adapters))
        return jobs

    def watch(self, owner: str, reply: Reply, jobs: list[Job]) -> Stopwatch:
        """Start the request's clock and charge its key with all it may use; raises APIError 429."""
        most = reply.prompt_tokens + sum(job.sampling["max_tokens"] for job in jobs)
        self.limits.take(owner, most)
        return Stopwatch(reply.endpoint, partial(self._settle, owner, most))

    def _settle(self, owner: str, reserved: int, used: int) -> None:
        self.limits.give_back(owner, reserved - used)

    def reply(self, request: Asked, prompts: list[list[int]]) -> Reply:
        """Return the empty reply that the answers are written into."""
        version, read = self.served.manifest.version, sum(map(len, prompts))
        chat, choices = isinstance(request, ChatRequest), len(prompts) * request.n
        tools = told(request) if isinstance(request, ChatRequest) else []
        if tools:
            names = [tool["function"]["name"] for tool in tools]
            reply: Reply = ToolReply(request.model, version, chat, read, choices, functions=names)
        else:
            reply = Reply(request.model, version, chat, read, choices, top=request.top)
        reply.stream_usage = bool(request.stream_options and request.stream_options.include_usage)
        return reply

    def described(self, name: str) -> dict[str, Any]:
        """Return a model as `/v1/models` lists it, with what the pages show of it."""
        manifest = self.served.manifest
        variant = manifest.models[name]
        about = manifest.model_dump(include={"description", "format", "version", "examples", "scores"}, mode="json")
        about["provenance"] = manifest.files.get(variant.provenance, (0, ""))[1]
        about["adapters"] = list(variant.adapters)
        about["keeps_feedback"] = self.ledger.kept
        about["context"] = self.engine.context
        about |= self.config.model_dump(include={"max_tokens", "temperature"})
        created = int((self.served.folder / MANIFEST).stat().st_mtime)
        return {"id": name, "object": "model", "created": created, "owned_by": "slipway", **about}


def held(request: Asked) -> dict[str, Any]:
    """Return the sampling setting that holds the answer to a JSON schema, if one is wanted."""
    schema = request.response_format.schema_wanted if request.response_format else None
    return {} if schema is None else {"json_schema": held_to(schema, "response_format")}
