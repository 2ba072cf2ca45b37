"""A person's own reward functions: loaded from the stage's input files, their cases checked.

    # my_rewards.py
    def score(completions, answer, **columns):
        return [float(turns[-1]["content"].strip() == right) for turns, right in zip(completions, answer)]

    CASES = [{"name": "good", "reply": "24", "expected": "24", "reward": 1}]

`CASES` may also be a dictionary of function name -> cases, where a file holds several functions.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from containers.contract import Files, StageError
from containers.grpo.config import FunctionReward
from containers.grpo.rewards import Case, Values
from containers.out import Out


class Own:
    """A function of a person's own."""

    def __init__(self, config: FunctionReward, files: Files | None, out: Out) -> None:
        """Load it from `files`; raises StageError where it is absent or its cases are no cases."""
        module = loaded(files.path / config.file if files else Path(config.file))
        found = getattr(module, config.function, None)
        if not callable(found):
            raise StageError(f"rewards: {config.file} has no function {config.function!r}")
        self.function: Callable[..., Any] = found
        self.__name__, self.weight = config.function, config.weight
        given = getattr(module, "CASES", ())
        given = given.get(config.function, ()) if isinstance(given, dict) else given
        try:
            self.cases = tuple(Case(**case) for case in given)
        except TypeError as error:
            raise StageError(f"rewards: {config.file} CASES: {error}; a case is a Case of grpo.rewards") from error
        if not self.cases:
            out.say(
                f"the reward function {config.function} of {config.file} has no CASES: nothing shows that it rewards "
                "what it should before the policy learns to please it",
                level="warning",
            )

    def __call__(self, **columns: Any) -> Values:
        """Return its reward per reply; raises StageError where it fails or returns something else."""
        try:
            found = [None if value is None else float(value) for value in self.function(**columns)]
        except Exception as error:
            raise StageError(f"rewards: {self.__name__} failed: {type(error).__name__}: {error}") from error
        if len(found) != len(columns["completions"]):
            raise StageError(f"rewards: {self.__name__} gave {len(found)} for {len(columns['completions'])} replies")
        return found


def loaded(file: Path) -> Any:
    """Return the module in `file`; raises StageError where it is absent or does not import."""
    if not file.is_file():
        raise StageError(f"rewards: {file.name} is not among the stage's inputs: give its file as `functions`")
    spec = importlib.util.spec_from_file_location(f"own_{file.stem}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise StageError(f"rewards: {file.name} does not import: {type(error).__name__}: {error}") from error
    return module
