"""transformers in this process: serves whatever it can read, one answer at a time. The fallback, not the choice."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from tokenizers.decoders import DecodeStream

from containers.quantized_folder import load_folder
from containers.serve.bundle import Served
from containers.serve.jobs import Hear, Job, Piece

RANDOM = 2**63
"""Seeds are below."""


class Plain:
    """A model folder in transformers, on the GPU where there is one."""

    certain = True

    def __init__(self, served: Served) -> None:
        """Load it; only safetensors are read."""
        self._model = load_folder(served.model, "cuda" if torch.cuda.is_available() else "cpu")
        self._chat, self._stops = served.chat, set(served.manifest.stop_ids)
        self._turn = threading.Lock()

    def answer(self, index: int, job: Job, hear: Hear) -> None:
        """See Backend."""
        with self._turn, torch.inference_mode():
            for piece in self._pieces(index, job):
                if hear(piece):
                    return

    def _pieces(self, index: int, job: Job) -> Iterator[Piece]:
        """Yield the text of each token as soon as it is whole, and held back while it may begin a stop text."""
        sampling, written, finish = job.sampling, 0, "length"
        decoder, text = DecodeStream(skip_special_tokens=True), Held(sampling.get("stop", []))
        told: list[dict[str, Any]] = []
        for token, logits in self._tokens(job):
            written += 1
            if token in self._stops:
                finish = "stop"
                break
            if "n_probs" in sampling:
                told.append(self._told(logits, token, sampling["n_probs"]))
            shown = text.add(decoder.step(self._chat.tokenizer, token) or "")
            if text.stopped:
                yield Piece(index, shown, "stop", len(job.ids), written, told or None)
                return
            if shown:
                yield Piece(index, shown, logprobs=told or None)
                told = []
        yield Piece(index, text.rest(), finish, len(job.ids), written, told or None)

    def _tokens(self, job: Job) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield drawn tokens with the logits (vocabulary,) that they were drawn from."""
        sampling = job.sampling
        draws = torch.Generator().manual_seed(sampling.get("seed", torch.seed() % RANDOM))
        grammar = (
            Grammar(self._chat.tokenizer, sorted(self._stops), sampling["json_schema"])
            if "json_schema" in sampling
            else None
        )
        seen: Counter[int] = Counter()
        ids, cache = torch.tensor([job.ids], device=self._model.device), None
        for place in range(sampling["max_tokens"]):
            read = self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, logits = read.past_key_values, read.logits[0, -1].float().cpu()
            allowed = grammar.masked(logits) if grammar else logits
            token = job.forced[place] if job.forced else draw(penalised(allowed, seen, sampling), sampling, draws)
            yield token, logits
            if grammar:
                grammar.take(token)
            seen[token] += 1
            ids = torch.tensor([[token]], device=self._model.device)

    def _told(self, logits: torch.Tensor, token: int, top: int) -> dict[str, Any]:
        """Return a token's log-probability and the likeliest ones."""
        known = logits.log_softmax(-1)
        best = known.topk(top)
        likeliest = [self._named(int(i), float(p)) for p, i in zip(*best, strict=True)]
        return self._named(token, float(known[token])) | {"id": token, "top_logprobs": likeliest}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._chat.tokenizer.decode([token], skip_special_tokens=False)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    def close(self) -> None:
        """Free the model."""
        del self._model


class Held:
    """Text on its way out: what may be the beginning of a stop text waits."""

    def __init__(self, stops: list[str]) -> None:
        """Take the texts that end an answer."""
        self._stops, self._text, self.stopped = stops, "", False

    def add(self, text: str) -> str:
        """Return what may be shown; nothing from a stop text on."""
        self._text += text
        places = [place for stop in self._stops if (place := self._text.find(stop)) >= 0]
        if places:
            self.stopped = True
            return self._text[: min(places)]
        kept = max((n for stop in self._stops for n in range(1, len(stop)) if self._text.endswith(stop[:n])), default=0)
        shown, self._text = self._text[: len(self._text) - kept], self._text[len(self._text) - kept :]
        return shown

    def rest(self) -> str:
        """Return what was held back."""
        return self._text


class Grammar:
    """A JSON schema as the tokens that may come next (llguidance)."""

    def __init__(self, tokenizer: Any, stops: list[int], schema: dict[str, Any]) -> None:
        """Begin before the first token; the answer may end where the schema is fulfilled."""
        import llguidance
        import llguidance.hf
        from transformers import PreTrainedTokenizerFast

        words = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
        known = llguidance.hf.from_tokenizer(words, eos_token=stops)
        self._matcher = llguidance.LLMatcher(known, llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema)))
        self._size = known.vocab_size

    def masked(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits (vocabulary,) with what may not come next at minus infinity."""
        import llguidance.torch as guidance

        mask, allowed = guidance.allocate_token_bitmask(1, self._size), logits.clone()[None]
        guidance.fill_next_token_bitmask(self._matcher, mask)
        guidance.apply_token_bitmask_inplace(allowed, mask)
        return allowed[0]

    def take(self, token: int) -> None:
        """Go on to the next token."""
        self._matcher.consume_token(token)


def penalised(logits: torch.Tensor, seen: Counter[int], sampling: dict[str, Any]) -> torch.Tensor:
    """Return logits less OpenAI's penalties: one per time that a token was written, one for having been at all."""
    often, once = sampling.get("frequency_penalty", 0), sampling.get("presence_penalty", 0)
    if not seen or not (often or once):
        return logits
    places = torch.tensor(list(seen))
    counts = torch.tensor([float(seen[int(i)]) for i in places])
    return logits.index_add(0, places, -(often * counts + once))


def draw(logits: torch.Tensor, sampling: dict[str, Any], draws: torch.Generator) -> int:
    """Return a token: the likeliest at temperature 0, else drawn from those that make up `top_p`."""
    if not sampling.get("temperature"):
        return int(logits.argmax())
    shares, tokens = (logits / sampling["temperature"]).softmax(-1).sort(descending=True)
    kept = shares.cumsum(-1) - shares < sampling.get("top_p", 1)
    return int(tokens[torch.multinomial(shares * kept, 1, generator=draws)])
