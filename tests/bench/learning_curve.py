"""How many tokens `tiny` needs: its stages at several budgets, accuracy per kind of question, and seconds.

    python -m tests.bench.learning_curve [RECIPE] [tokens ...] [key=value ...]

Prints one Markdown table; flows/recipes/tiny.learning-curve.md keeps the one that the recipe's numbers came from.
Every stage runs by hand in a folder of its own, without a store, so that seconds are those of the work.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from containers.contract import Dataset, Frozen, Model, Role
from containers.data.contract import DataInputs
from containers.evaluate.contract import EvaluateInputs
from containers.merge.contract import MergeInputs
from containers.pretrain.contract import PretrainInputs
from containers.sft.contract import SFTInputs
from containers.tokenizer.contract import TokenizerInputs
from flows.recipe import Recipe, load_recipe
from tests.by_hand import run_by_hand

BUDGETS = (500_000, 1_000_000, 1_500_000, 2_000_000)
Figures = dict[str, float]


@dataclass
class Line:
    """One column of the table: what a budget bought."""

    tokens: int
    seconds: Figures
    scores: Figures


class Bench:
    """The main line of a recipe up to its scores, stage by stage in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: Figures = {}
        self.count = 0

    def run(self, word: str, config: Frozen, inputs: Frozen) -> tuple[Any, Figures]:
        """Return a stage's outputs and its recorded figures; its seconds add up under its word."""
        self.count += 1
        outputs, result = run_by_hand(self.folder / f"{self.count:02}-{word}", word, config, inputs)
        self.seconds[word] = self.seconds.get(word, 0) + result.seconds
        return outputs, result.metrics

    def data(self, recipe: Recipe) -> dict[Role, Dataset]:
        """Return the recipe's datasets, what is tested kept out of what trains."""
        made: dict[Role, Dataset] = {}
        roles: tuple[Role, ...] = ("problems", "instructions", "corpus")
        for role in roles:
            if config := getattr(recipe.data, role):
                made[role] = self.run("data", config, DataInputs(role=role, held_out=tuple(made.values())))[0].dataset
        return made

    def line(self, recipe: Recipe, tokens: int) -> Line:
        """Return what `tokens` tokens of pretraining lead to."""
        self.seconds = {}
        data = self.data(recipe)
        tokenizer = self.run("tokenizer", recipe.tokenizer, TokenizerInputs(corpus=data["corpus"]))[0].tokenizer
        budget = recipe.pretrain.revise(max_tokens=tokens)
        made, figures = self.run("pretrain", budget, PretrainInputs(corpus=data["corpus"], tokenizer=tokenizer))
        chat = self.run("sft", recipe.sft, SFTInputs(base=made.model, instructions=data["instructions"]))[0].model
        if not isinstance(chat, Model):
            chat = self.run("merge", recipe.merge, MergeInputs(base=made.model, adapter=chat))[0].model
        asked = EvaluateInputs(name="chat", model=chat, **{role: data[role] for role in ("instructions", "problems")})
        scores = self.run("evaluate", recipe.evaluate, asked)[1]
        return Line(tokens, self.seconds, {"bits_per_byte": figures["bits_per_byte"], **scores})


def table(lines: list[Line]) -> str:
    """Return the lines as columns of a Markdown table."""
    rows = [["tokens", *(f"{line.tokens:,}" for line in lines)], ["---", *("---:" for _ in lines)]]
    rows += [[f"{word}, s", *(f"{line.seconds[word]:.0f}" for line in lines)] for word in lines[0].seconds]
    rows.append(["bits per byte", *(f"{line.scores['bits_per_byte']:.3f}" for line in lines)])
    for name in sorted(lines[0].scores):
        if name.startswith("accuracy") or name.endswith("refusal_rate"):
            rows.append([name, *(f"{line.scores[name]:.1%}" for line in lines)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(words: list[str]) -> None:
    """Measure each budget and print the table, once per budget, so that a stopped run still says something."""
    overrides = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word and not word.isdigit()]
    budgets = [int(word) for word in words if word.isdigit()] or list(BUDGETS)
    recipe = load_recipe(names[0] if names else "tiny", overrides)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for tokens in budgets:
            lines.append(bench.line(recipe, tokens))
            print(table(lines), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
