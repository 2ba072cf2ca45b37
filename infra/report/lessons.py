"""What each stage does to a model, in five answers: the paragraph that opens its section in the report."""

from typing import NamedTuple


class Lesson(NamedTuple):
    """Goal, data, supervision, compute and risk of one stage."""

    title: str
    goal: str
    data: str
    supervision: str
    compute: str
    risk: str


LESSONS = {
    "data": Lesson(
        "Data",
        "Turn whatever people have into one clean schema per role, and set aside what the model must never train on.",
        "Your files, hub sets or builtin worlds, as they are.",
        "None: rules, and every rejected row is listed with its reason.",
        "One core, streamed; memory stays flat however large the corpus is.",
        "Duplicates and leaked test rows make every later number look better than it is.",
    ),
    "tokenizer": Lesson(
        "Tokenizer",
        "Choose the alphabet: which byte sequences become one token.",
        "The corpus, counted.",
        "None: the most frequent pairs are merged until the vocabulary is full.",
        "Seconds to minutes on a CPU.",
        "A vocabulary made for other text wastes context and compute for the rest of the model's life.",
    ),
    "pretrain": Lesson(
        "Pretraining",
        "Learn the language: predict the next token, everywhere.",
        "Plain text, as much as there is.",
        "The text itself: each token is the label of those before it.",
        "Nearly all of a model's compute is spent here.",
        "It learns to continue text, not to help: ask it a question and it may answer with another question.",
    ),
    "sft": Lesson(
        "Supervised fine-tuning",
        "Learn to answer: imitate good replies, turn by turn.",
        "Conversations written or checked by people.",
        "The assistant's tokens only; the mask certificate shows which those are.",
        "Small beside pretraining; an adapter (LoRA, QLoRA) trains a hundredth of the weights.",
        "A wrong mask or a lost end-of-turn token trains silence or endless talk, and the loss looks fine.",
    ),
    "merge": Lesson(
        "Merge",
        "Fold the adapter into its base, so that what is served is one plain model.",
        "None.",
        "A proof: the logits before and after are compared.",
        "Seconds.",
        "Merged into another base than it was trained on, an adapter is noise.",
    ),
    "evaluate": Lesson(
        "Evaluation",
        "Measure every model of the run on the same held-out questions.",
        "Test rows that no stage has trained on.",
        "Known answers; intervals say how far chance alone would move a figure.",
        "One pass of generation per model.",
        "A test set seen in training, or read too often, measures memory.",
    ),
    "quantize": Lesson(
        "Quantization",
        "Make the model small enough to serve where you are.",
        "Held-out text, to see what each format costs.",
        "The 16-bit parent: how often do the two agree on the next token?",
        "Minutes; no training.",
        "A format can be small, fast and quietly worse: so each is measured before one ships.",
    ),
    "package": Lesson(
        "Package",
        "Put the model, its tokenizer and template, the service and the page into one versioned bundle.",
        "The shipped format, the scores, the provenance.",
        "Digests: what was measured is what is packed.",
        "Seconds.",
        "A template or stop token that differs between training and serving spoils good weights.",
    ),
    "serve": Lesson(
        "Serving",
        "Answer over HTTP in the OpenAI dialect.",
        "What people ask.",
        "Health checks now; people's judgement next.",
        "For as long as it runs: memory for the weights and for each open conversation.",
        "Whatever people send is input: it is limited, and never logged by default.",
    ),
}
"""Lessons in the order of the line."""
