"""Talk to any model of a run, straight from the store: `slipway chat`."""

import os
import sys
from typing import Any

from rich.console import Console

from containers.contract import StageError
from infra.runs import RunRecord, find_run, read_record
from infra.settings import Settings
from infra.store import Store

Message = dict[str, str]


def talk(name: str, prompt: str, run: str, max_tokens: int) -> None:
    """Answer one prompt, or talk until an empty line or Ctrl-D."""
    settings = Settings()
    record = read_record(find_run(settings, run))
    models = models_of(record, Store(settings.store))
    if not models:
        raise StageError(f"{record.run} has no model yet")
    chosen = name or list(models)[-1]
    if chosen not in models:
        raise StageError(f"{record.run} has no model {chosen!r}: choose from {', '.join(models)}")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    speaker = Speaker(models[chosen], max_tokens)
    if prompt:
        speaker.answer([{"role": "user", "content": prompt}])
        return
    converse(speaker, chosen, Console())


def converse(speaker: "Speaker", name: str, console: Console) -> None:
    """Take turns until an empty line, Ctrl-D or Ctrl-C."""
    console.print(f"[bold]{name}[/] listens. An empty line ends it.", highlight=False)
    messages: list[Message] = []
    while True:
        try:
            question = console.input("[bold cyan]> [/]").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if not question:
            return
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": speaker.answer(messages)})


def models_of(record: RunRecord, store: Store) -> dict[str, str]:
    """Return name -> folder of every whole model that a run made, by the names that it was evaluated under.

    A model that was not evaluated goes by the stage that made it.
    """
    made: dict[str, tuple[str, str]] = {}
    names: dict[str, str] = {}
    for entry in record.stages:
        if not entry.address or entry.status not in ("done", "cached"):
            continue
        published = store.load(entry.address)
        for value in published.result.outputs.values():
            if isinstance(value, dict) and value.get("kind") == "model":
                made[value["digest"]] = (entry.name, str(published.folder / value["path"]))
        if entry.name == "evaluate":
            names[published.request.inputs["model"]["digest"]] = entry.label
    return {names.get(digest, stage): folder for digest, (stage, folder) in made.items()}


class Speaker:
    """A model that answers, printing as it thinks."""

    def __init__(self, folder: str, max_tokens: int) -> None:
        """Load the model at `folder` in 32 bit."""
        from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        self.streamer = TextStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.max_tokens = max_tokens

    def answer(self, messages: list[Message]) -> str:
        """Print the answer as it comes and return it."""
        tokens: Any = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        began = tokens["input_ids"].shape[1]
        room = getattr(self.model.config, "max_position_embeddings", began + self.max_tokens) - began
        if room <= 0:
            raise StageError("the conversation is longer than the model's context: start a new one")
        made = self.model.generate(
            **tokens, max_new_tokens=min(self.max_tokens, room), do_sample=False, streamer=self.streamer
        )
        sys.stdout.flush()
        return str(self.tokenizer.decode(made[0, began:], skip_special_tokens=True))
