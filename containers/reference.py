"""What the 16-bit model says in transformers, carried beside each of its formats, so that who packs one can compare.

The prompts are our own: nothing of a person's data travels with a bundle.
"""

from pathlib import Path

from containers.contract import Frozen, StageError
from containers.formats import Message

FILE = "reference.json"


class Exchange(Frozen):
    """One chat, its tokens, and the likeliest answer in transformers."""

    messages: tuple[Message, ...]
    ids: tuple[int, ...]
    """Of the rendered chat, the assistant's turn opened: what the model was trained with, and read here."""
    as_transformers: bool
    """Whether `apply_chat_template` makes the same ids of the text; it merges a template's space with a content."""
    answer: tuple[int, ...]
    """Greedy, the stop token included where it came to one."""
    log_probs: tuple[float, ...]
    """Of each token of the answer, in nats."""
    margins: tuple[float, ...]
    """How much likelier each token is than the next best, in nats: near 0 it is a coin toss."""


class Reference(Frozen):
    """reference.json."""

    parent: str
    """Digest of the 16-bit model."""
    precision: str
    """Arithmetic of transformers: fp32 or bf16."""
    exchanges: tuple[Exchange, ...]

    def write(self, folder: Path) -> None:
        """Write it beside a format's weights."""
        (folder / FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Reference":
        """Return what lies beside a format's weights; raises StageError where there is none."""
        file = folder / FILE
        if not file.is_file():
            raise StageError(
                f"{folder} holds no {FILE}, the 16-bit model's own answers, so that nothing can be proven: quantize "
                "the model again, or pack it unproven with `package.prove_parity=false`"
            )
        return cls.model_validate_json(file.read_text(encoding="utf-8"))
