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
    "critique": Lesson(
        "Constitutional critique",
        "Let a judge criticise and revise the model's own answers by written principles, and so make judgements.",
        "Prompts, and a constitution that people wrote.",
        "The judge: the model itself or another one. Pairs that it does not find better are dropped.",
        "Three answers per prompt; no training.",
        "A judge as weak as the model agrees with it: read the samples before you train on them.",
    ),
    "candidates": Lesson(
        "Candidates",
        "Draw several answers to each prompt, for people to rank.",
        "Prompts.",
        "None yet: people's rankings come back as judgements.",
        "One pass of generation per answer.",
        "Answers that hardly differ teach raters, and then the model, nothing.",
    ),
    "reward": Lesson(
        "Reward model",
        "Learn what people prefer, as one number per answer.",
        "Pairs of answers to the same prompt, the better one named.",
        "People's choice in each pair; nothing says by how much one is better.",
        "About one pass of fine-tuning.",
        "It may have learnt a shortcut: length, a phrase. Calibration and length bias are reported; read them.",
    ),
    "rlhf": Lesson(
        "Reinforcement learning from human feedback",
        "Raise the reward of the model's own answers, without leaving the model that it was.",
        "Prompts alone; the model writes the answers.",
        "The reward model's number, less a price for each nat away from the reference.",
        "Generation and several passes over each answer: the dearest step after pretraining.",
        "It finds every flaw of the reward model. The true measure is one that training never sees.",
    ),
    "dpo": Lesson(
        "Direct preference optimisation",
        "Make the preferred answer likelier and the other one less so, against a frozen reference.",
        "The same pairs that a reward model would learn from.",
        "People's choice in each pair.",
        "Two passes per pair, no generation.",
        "It only sees answers that somebody else wrote, and can push both answers' likelihood down.",
    ),
    "grpo": Lesson(
        "Learning from checked answers",
        "Raise the share of problems that are solved: several tries each, the better ones reinforced.",
        "Problems whose answers can be checked.",
        "A check, not a judge: right or wrong, in the form asked for.",
        "Several generated answers per problem.",
        "What is checked is what is learnt: a format can be right with the reasoning wrong.",
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
    "convert": Lesson(
        "Adapters beside their base",
        "Keep what was learnt apart from the base, so that one base serves several models.",
        "None: the adapters as they were trained.",
        "The base with its adapters is held to the merged model that was measured.",
        "Seconds to minutes; no training.",
        "On another base, or on rows in another order, an adapter is noise.",
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
