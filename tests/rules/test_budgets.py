"""Function <= 40 lines, file <= 250, task file <= 35, flow <= 100, contract <= 80, <= 5 arguments."""

import ast
from pathlib import Path

from tests.rules.house import STAGES, name_of, sources, tree

FLOWS = ("train_llm.py", "adapt_model.py", "retrain.py", "release_model.py")


def length(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def budget(file: Path) -> int:
    if file.parent.name == "tasks":
        return 35
    if file.name in FLOWS:
        return 100
    if file.name == "contract.py" and file.parent.name in STAGES:
        return 80
    return 250


def test_files_are_short() -> None:
    wrong = [f"{name_of(f)}: {length(f)} lines, at most {budget(f)}" for f in sources() if length(f) > budget(f)]
    assert not wrong, "\n".join(wrong)


def test_functions_are_short_and_take_few_arguments() -> None:
    wrong = []
    for file in sources():
        for node in ast.walk(tree(file)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            arguments = [a for a in given if a not in ("self", "cls")]
            if lines > 40:
                wrong.append(f"{name_of(file)}:{node.lineno} {node.name}: {lines} lines, at most 40")
            if len(arguments) > 5 and not is_command(node):
                wrong.append(f"{name_of(file)}:{node.lineno} {node.name}: {len(arguments)} arguments, at most 5")
    assert not wrong, "\n".join(wrong)


def is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A command of the CLI: each argument is an option that a person types, not a parameter of a call."""
    return any("command" in ast.unparse(d) for d in node.decorator_list)


def test_a_flow_is_a_paragraph() -> None:
    wrong = []
    for file in sources("flows"):
        if file.name in FLOWS:
            tries = [n for n in ast.walk(tree(file)) if isinstance(n, ast.Try)]
            numbers = [n for n in ast.walk(tree(file)) if isinstance(n, ast.Constant) and type(n.value) in (int, float)]
            wrong += [f"{name_of(file)}:{n.lineno}: a try or a number in a flow" for n in tries + numbers]
    assert not wrong, "\n".join(wrong)
