"""What a person chooses about serving. `serve` is desired state, not a stage: it has a config and no run()."""

from ipaddress import ip_address

from pydantic import Field, field_validator

from containers.contract import Config


class ServeConfig(Config):
    """Where the bundle answers, and how much at once."""

    host: str = "127.0.0.1"
    """Address to listen on; loopback by default, because anyone who reaches it may use the model."""
    port: int = Field(3000, ge=1, le=65535)
    """TCP port of the API and the chat page."""
    slots: int = Field(8, ge=1, le=256)
    """Conversations generated at once; further ones wait. Memory for attention grows with slots x context."""
    context: int = Field(2048, ge=16)
    """Tokens of prompt and answer together, per conversation; never more than the model was trained on."""
    max_tokens: int = Field(512, ge=1)
    """Longest answer in tokens: a request that names none gets this, one that asks for more is cut to it."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of the engine; all cores when absent."""
    temperature: float = Field(0.0, ge=0, le=2)
    """For requests that name none. 0 takes the likeliest token, which is how the scores were measured."""

    @field_validator("host")
    @classmethod
    def an_address(cls, host: str) -> str:
        """Refuse a name: BentoML listens on addresses only."""
        try:
            return str(ip_address(host))
        except ValueError:
            raise ValueError("give an IP address, for example 127.0.0.1 (this machine) or 0.0.0.0 (everyone)") from None
