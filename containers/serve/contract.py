"""What a person chooses about serving. `serve` is desired state, not a stage: it has a config and no run()."""

from ipaddress import ip_address
from typing import Literal

from pydantic import Field, field_validator

from containers.contract import Config


class ServeConfig(Config):
    """Where the bundle answers, whom, and how much at once."""

    host: str = "127.0.0.1"
    """Address to listen on; this machine alone by default."""
    port: int = Field(3000, ge=1, le=65535)
    """TCP port of the API and the chat page."""
    authentication: Literal["key", "none"] = "key"
    """`key`: /v1 answers who sends `Authorization: Bearer KEY` (one is made when there is none); `none`: anyone."""
    engine: Literal["auto", "llama.cpp", "vllm", "sglang", "tensorrt-llm", "transformers"] = "auto"
    """What generates. auto: llama.cpp for gguf, else transformers (one answer at a time: a fallback). vllm, sglang and
    tensorrt-llm are programs of environments of their own, started behind this API; they serve safetensors."""
    engine_program: str | None = None
    """Path of that program, where it is not on PATH: `vllm`, `sglang` or `trtllm-serve`."""
    engine_options: tuple[str, ...] = ()
    """Further words of that program's command line, for example `[--gpu-memory-utilization, "0.5"]`."""
    slots: int = Field(8, ge=1, le=256)
    """Conversations generated at once; further ones wait. Memory for attention grows with slots x context."""
    queue: int = Field(32, ge=0, le=4096)
    """Answers that may wait for a slot; a request beyond is told 429 and when to come back. 0 keeps the time to the
    first token flat under any load, more takes bursts."""
    context: int = Field(2048, ge=16)
    """Tokens of prompt and answer together, per conversation; never more than the model was trained on."""
    max_tokens: int = Field(512, ge=1)
    """Longest answer in tokens: a request that names none gets this, one that asks for more is cut to it."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of the engine; all cores when absent."""
    temperature: float = Field(0.0, ge=0, le=2)
    """For requests that name none. 0 takes the likeliest token, which is how the scores were measured."""
    deadline_seconds: float = Field(300, gt=0, le=3600)
    """From a request to the end of its answer, the wait included; what takes longer is ended with 504."""
    drain_seconds: float = Field(25, ge=0, le=600)
    """Told to stop, the service takes no new request and lets answers under way end; after this long it cuts them."""
    requests_per_minute: int | None = Field(None, ge=1)
    """Requests of one key, with bursts of as many; no limit when absent. Beyond: 429 and when to come back."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """Tokens read and written for one key; a request reserves its prompt and longest answer, and gets back what it did
    not use. No limit when absent."""
    feedback_per_key: int = Field(10_000, ge=0)
    """Rows that one key may leave at /v1/feedback and /v1/preferences together."""

    @field_validator("host")
    @classmethod
    def an_address(cls, host: str) -> str:
        """Refuse a name: BentoML listens on addresses only."""
        try:
            return str(ip_address(host))
        except ValueError:
            raise ValueError("give an IP address, for example 127.0.0.1 (this machine) or 0.0.0.0 (everyone)") from None
