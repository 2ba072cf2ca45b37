"""Draw several answers to each prompt, for people to rank.

`candidates.jsonl`, version 1, holds one JSON object a line:

    version      1
    id           of the prompt's row
    split        train, validation or test: where pairs of this prompt belong
    task         of the prompt's row, or null
    prompt       messages that end with the user
    candidates   two or more different answers
    model        digest of the model that gave them
    sampling     temperature, max_tokens, seed and count that they were drawn with
    ranking      null; a person puts places in `candidates` here, best first (or `ranks`: a number for each)
    rater        null; a person's name

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

import json
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from containers.candidates.contract import CandidatesConfig, CandidatesInputs, CandidatesOutputs
from containers.chunks import Pulse, in_chunks
from containers.contract import Candidates, StageError
from containers.out import Out
from containers.prompts import Prompt, prompts_in
from containers.speaking import Reply
from containers.voice import Voice

VERSION = 1
BATCHES_PER_CHUNK = 8
SAMPLES = 3


def run(config: CandidatesConfig, inputs: CandidatesInputs, out: Out) -> CandidatesOutputs:
    """Write candidates.jsonl; raises StageError where no prompt has two different answers."""
    prompts = prompts_in(inputs.prompts, config.max_prompts, config.seed)
    voice = Voice.load(inputs.model, config, out)
    pulse = Pulse(out, len(prompts), "prompts")
    rows: list[dict[str, Any]] = []

    def make(number: int, chunk: Sequence[Prompt]) -> list[dict[str, Any]]:
        draw = voice.draw(config.temperature, random.Random(f"{config.seed} {number}").getrandbits(63))
        asked = [prompt.messages for prompt in chunk for _ in range(config.count)]
        replies = voice.answer(asked, config.max_tokens, pulse, draw)
        return [row_of(p, replies[i * config.count : (i + 1) * config.count]) for i, p in enumerate(chunk)]

    size = max(1, config.batch_size * BATCHES_PER_CHUNK // config.count)
    for done, made in in_chunks(prompts, size, out.work, make):
        rows += made
        pulse.done = done
        out.progress(done, len(prompts), "prompts")
    sampling = {"temperature": config.temperature, "max_tokens": config.max_tokens, "seed": config.seed}
    provenance = {"model": inputs.model.digest, "sampling": {**sampling, "count": config.count}}
    return CandidatesOutputs(candidates=write(rows, provenance, out))


def row_of(prompt: Prompt, replies: Sequence[Reply | None]) -> dict[str, Any]:
    """Return a prompt with its different answers, and how many replies were no use."""
    texts = [reply.text for reply in replies if reply and reply.finished and reply.text]
    different = list(dict.fromkeys(texts))
    lost = {
        "prompt_too_long": sum(reply is None for reply in replies),
        "cut": sum(reply is not None and not reply.finished for reply in replies),
        "equal": len(texts) - len(different),
    }
    named = {"id": prompt.id, "split": prompt.split, "task": prompt.task, "prompt": prompt.messages}
    return {**named, "candidates": different, "lost": lost}


def write(rows: list[dict[str, Any]], provenance: dict[str, Any], out: Out) -> Candidates:
    """Write the rows that have something to rank, and the card; raises StageError where there are none."""
    lost = sum((Counter(row["lost"]) for row in rows), Counter())
    kept = [row for row in rows if len(row["candidates"]) > 1]
    said = f"{lost['cut']} answers cut, {lost['equal']} equal, {lost['prompt_too_long']} to prompts beyond the context"
    out.say(f"{len(kept)} of {len(rows)} prompts have something to rank; {said}")
    if not kept:
        raise StageError(
            f"no prompt of {len(rows)} has two different answers ({said}): raise max_tokens, temperature or count"
        )
    folder = out.artifact("candidates")
    with (folder / "candidates.jsonl").open("w", encoding="utf-8") as stream:
        for row in kept:
            named = {name: value for name, value in row.items() if name != "lost"}
            line = {"version": VERSION, **named, **provenance, "ranking": None, "rater": None}
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    answers = sum(len(row["candidates"]) for row in kept)
    out.record(prompts=len(kept), answers=answers)
    splits = Counter(row["split"] for row in kept)
    samples = [{name: row[name] for name in ("prompt", "candidates")} for row in kept[:SAMPLES]]
    out.write_card(
        **provenance, prompts=len(kept), asked=len(rows), answers=answers, lost=dict(lost), splits=dict(splits),
        samples=samples,
    )  # fmt: skip
    return Candidates.of(folder)
