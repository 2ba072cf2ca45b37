"""Measure one model on what it has never seen: losses, answers, refusals; every answer is kept.

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

import json
import time
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import PreTrainedModel

from containers.contract import Dataset, Scores
from containers.evaluate.contract import EvaluateConfig, EvaluateInputs, EvaluateOutputs
from containers.evaluate.intervals import Bootstrap
from containers.evaluate.losses import Score, answer_loss, pair_accuracy, text_losses
from containers.evaluate.marking import SCHEMA, Item, counted, marked, measures_of
from containers.evaluate.questions import NEXT, Question, held_out, questions_of
from containers.formats import ChatFormat
from containers.generation import Job, answer_all
from containers.models import be_deterministic, device_for, load_model, working_precision
from containers.out import Out

SETS = ("corpus", "instructions", "preferences", "problems")


def run(config: EvaluateConfig, inputs: EvaluateInputs, out: Out) -> EvaluateOutputs:
    """Write scores.json and items.parquet; raises StageError for a model that may not be loaded."""
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = device_for(config.device)
    be_deterministic(device)
    precision, why = working_precision(config.precision, device)
    if why:
        out.say(why)
    model = load_model(inputs.model, precision, device=device)
    chat = ChatFormat.load(inputs.model.path)
    inputs = inputs.revise(**{name: present(getattr(inputs, name)) for name in SETS})

    scores = losses(model, chat, config, inputs, out)
    questions = list(questions_of(config, inputs, chat))
    items = counted(answers(model, chat, questions, config, out))
    scores += measures_of(items, Bootstrap(config.resamples, config.seed))

    folder = out.artifact("scores")
    prompts = [{"prompt": item.prompt, "answer": item.answer} for item in items if item.set == "prompts"]
    found = {"measures": scores, "prompts": prompts, "skipped": len(questions) - len(items)}
    (folder / "scores.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    pq.write_table(pa.Table.from_pylist([vars(item) for item in items], schema=SCHEMA), folder / "items.parquet")
    out.record(**{str(score["measure"]): score["value"] for score in scores})
    out.write_card(model=inputs.name, precision=precision, items=len(items), **found)
    return EvaluateOutputs(scores=Scores.of(folder, model=inputs.name))


def present(dataset: Dataset | None) -> Dataset | None:
    """Return a data set that has held-out rows, else None."""
    return dataset if dataset and dataset.rows.get(held_out(dataset)) else None


def losses(
    model: PreTrainedModel, chat: ChatFormat, config: EvaluateConfig, inputs: EvaluateInputs, out: Out
) -> list[Score]:
    """Return the scores that need no answer."""
    found = text_losses(model, chat, inputs.corpus, config, out) if inputs.corpus else []
    found += answer_loss(model, chat, inputs.instructions, config, out) if inputs.instructions else []
    return found + (pair_accuracy(model, chat, inputs.preferences, config, out) if inputs.preferences else [])


def answers(
    model: PreTrainedModel, chat: ChatFormat, questions: list[Question], config: EvaluateConfig, out: Out
) -> list[Item]:
    """Return every question with its answer; one whose prompt leaves no room in the context is left out, and said."""
    context = int(model.config.max_position_embeddings)
    fitting = [question for question in questions if len(question.ids) < context]
    if len(fitting) < len(questions):
        out.say(
            f"{len(questions) - len(fitting)} of {len(questions)} prompts fill the context of {context} tokens and "
            "were skipped",
            level="warning",
        )
    jobs: dict[tuple[int, ...], Job] = {}
    for question in fitting:
        ended = partial(is_over, chat, question.way)
        jobs[tuple(question.ids)] = Job(question.ids, min(config.max_new_tokens, context - len(question.ids)), ended)
    began = time.monotonic()
    made = answer_all(model, list(jobs.values()), config.batch_size, lambda n: out.progress(n, len(jobs), "answers"))
    seconds = time.monotonic() - began
    tokens = sum(map(len, made))
    out.record(generation_seconds=seconds, generated_tokens_per_second=tokens / max(seconds, 1e-9))
    texts = dict(zip(jobs, (chat.decode(ids).split(NEXT)[0].strip() for ids in made), strict=True))
    return [marked(question, texts[tuple(question.ids)]) for question in fitting]


def is_over(chat: ChatFormat, way: str, made: list[int]) -> bool:
    """Tell whether an answer is at its end: a stop token, or the next question of a completion."""
    return made[-1] in chat.stop_ids or (way == "few_shot" and NEXT in chat.decode(made[-8:]))
