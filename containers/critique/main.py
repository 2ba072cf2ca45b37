"""Have a model's answers criticised by a constitution and written anew; the pairs are preferences.

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from containers.chunks import Pulse, in_chunks
from containers.contract import Dataset, Split, StageError
from containers.critique.contract import CritiqueConfig, CritiqueInputs, CritiqueOutputs
from containers.critique.reviewing import Reviewer
from containers.formats import schema_of
from containers.judges.judge import judge_of
from containers.out import Out
from containers.prompts import prompts_in
from containers.voice import Voice

BATCHES_PER_CHUNK = 8
SAMPLES, SAMPLE_CHARACTERS = 5, 600
SHOWN = ("principle", "prompt", "first", "critique", "revision")
Case = dict[str, Any]


def run(config: CritiqueConfig, inputs: CritiqueInputs, out: Out) -> CritiqueOutputs:
    """Write the pairs, and beside them what became of every prompt; raises StageError where no pair is left."""
    prompts = prompts_in(inputs.prompts, config.max_prompts, config.seed)
    voice = Voice.load(inputs.model, config, out)
    judge = judge_of(config.judge, voice, inputs.recorded, out)
    pulse = Pulse(out, len(prompts), "prompts")
    reviewer = Reviewer(config, voice, judge, pulse)
    cases: list[Case] = []
    for done, rows in in_chunks(prompts, config.batch_size * BATCHES_PER_CHUNK, out.work, reviewer.review):
        cases += rows
        pulse.done = done
        kept = sum(case["outcome"] == "kept" for case in cases)
        out.progress(done, len(prompts), "prompts", kept=kept)
        out.metrics(done, kept_share=kept / done)
    judge.close()
    provenance = {"judge": judge.name, "model": inputs.model.digest}
    write_card(cases, provenance, out)
    pairs = [case for case in cases if case["outcome"] == "kept"]
    if not pairs:
        raise StageError(f"no pair is left of {len(cases)} prompts ({said(cases)}): {remedy(config)}")
    return CritiqueOutputs(preferences=write_pairs(pairs, out.artifact("preferences")))


def write_pairs(pairs: list[Case], folder: Path) -> Dataset:
    """Write an ordinary preferences data set: chosen = revision, rejected = first answer."""
    schema, rows = schema_of("preferences"), {}
    for split in get_args(Split):
        mine = [row_of(case) for case in pairs if case["split"] == split]
        (folder / split).mkdir(parents=True)
        pq.write_table(
            pa.Table.from_pylist(mine, schema=schema), folder / split / "00000.parquet",
            compression="zstd", compression_level=1, use_dictionary=False, write_statistics=False, store_schema=False,
        )  # fmt: skip
        rows[split] = len(mine)
    return Dataset.of(folder, role="preferences", rows=rows)


def row_of(case: Case) -> dict[str, Any]:
    """Return one row of the data set."""
    chosen, rejected = ([{"role": "assistant", "content": case[name]}] for name in ("revision", "first"))
    named = {"id": case["id"], "source": f"critique:{case['principle']}", "task": case["task"], "answer": None}
    return {"prompt": case["prompt"], "chosen": chosen, "rejected": rejected, **named}


def write_card(cases: list[Case], provenance: dict[str, str], out: Out) -> None:
    """Write provenance.jsonl (every prompt: principle, texts, scores, outcome, judge, model) and the card."""
    lines = (json.dumps({**case, **provenance}, ensure_ascii=False, sort_keys=True) for case in cases)
    (out.card / "provenance.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    pairs = [case for case in cases if case["outcome"] == "kept"]
    outcomes = Counter(case["outcome"] for case in cases)
    both = [
        (c["first_score"], c["revision_score"]) for c in cases if None not in (c["first_score"], c["revision_score"])
    ]
    gain = sum(revision - first for first, revision in both) / len(both) if both else 0.0
    out.record(prompts=len(cases), pairs=len(pairs), kept_share=len(pairs) / len(cases), mean_score_gain=gain)
    out.write_card(
        **provenance,
        prompts=len(cases),
        outcomes=dict(outcomes.most_common()),
        principles={
            name: {"prompts": count, "pairs": sum(case["principle"] == name for case in pairs)}
            for name, count in Counter(case["principle"] for case in cases).items()
        },
        mean_score_gain=gain,
        samples=[{name: shortened(case[name]) for name in SHOWN} for case in pairs[:SAMPLES]],
    )
    out.say(f"{len(pairs)} pairs of {len(cases)} prompts: {said(cases)}")


def shortened(text: Any) -> str:
    """Return the beginning of a text, or of a prompt's last turn."""
    whole = text if isinstance(text, str) else str(text[-1]["content"])
    return whole if len(whole) <= SAMPLE_CHARACTERS else whole[:SAMPLE_CHARACTERS].rstrip() + " ..."


def said(cases: list[Case]) -> str:
    """Return what became of the prompts in one line."""
    counts = Counter(case["outcome"] for case in cases).most_common()
    return ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in counts)


def remedy(config: CritiqueConfig) -> str:
    """Return what to try where no revision made a pair."""
    stronger = "judge by a stronger model (`judge: {kind: endpoint, ...}`), raise max_tokens"
    return (
        f"{stronger}, or take every revision that differs (`keep: different`)" if config.keep == "better" else stronger
    )
