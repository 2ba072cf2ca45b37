"""The code of a stage: what belongs to it, what a change of it means, and how the child checks it."""

import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from containers.code import Code, CodeMismatch, canonical, digest_of_python, imported, parts_of
from tests.rules.house import ROOT, STAGES


@pytest.fixture
def room(tmp_path):
    """A little containers/ with a stage `mill`, a stage `kiln` and a module that both share."""
    files = {
        "containers/__init__.py": "",
        "containers/contract.py": "",
        "containers/out.py": "",
        "containers/shared.py": "def weigh(): return 1",
        "containers/unused.py": "",
        "containers/mill/__init__.py": "",
        "containers/mill/contract.py": "class C:\n    rate: float = 1.0\n    'Documentation of rate.'",
        "containers/mill/main.py": """
            '''Grind.'''
            from containers.contract import Config
            from .stones import turn

            def run():
                '''Grind it.'''
                import containers.shared
                return turn()
            """,
        "containers/mill/stones.py": "def turn(): return 2",
        "containers/mill/page.html": "<p>flour</p>",
        "containers/mill/shipped.py": "def serve(): return 3",
        "containers/kiln/__init__.py": "",
        "containers/kiln/contract.py": "",
        "containers/kiln/main.py": "from containers.shared import weigh",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    return tmp_path / "containers"


def edit(room: Path, name: str, old: str, new: str) -> None:
    text = (room / name).read_text()
    assert old in text
    (room / name).write_text(text.replace(old, new))


def test_the_closure_follows_imports_at_any_depth(room):
    assert set(parts_of("mill", room)) == {
        "containers.contract",
        "containers.out",
        "containers.shared",
        "containers.mill",
        "containers.mill.contract",
        "containers.mill.main",
        "containers.mill.stones",
        "containers.mill.shipped",
        "containers/mill/page.html",
    }
    assert "containers.mill.main" not in parts_of("kiln", room)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("mill/main.py", "Grind it.", "Grind it well."),
        ("mill/main.py", "'''Grind.'''", "# Grind."),
        ("mill/main.py", "return turn()", "return (turn(\n    ))  # turn"),
        ("mill/contract.py", "Documentation", "Description"),
        ("unused.py", "", "A = 1"),
        ("kiln/main.py", "weigh", "weigh as w"),
    ],
)
def test_what_does_not_count(room, name, old, new):
    before = Code("mill", room).digest
    edit(room, name, old, new)
    assert Code("mill", room).digest == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("mill/main.py", "return turn()", "return turn() + 1"),
        ("mill/stones.py", "2", "2.0"),
        ("mill/stones.py", "2", "'2'"),
        ("mill/contract.py", "1.0", "1.5"),
        ("shared.py", "1", "True"),
        ("mill/page.html", "flour", "meal"),
        ("mill/shipped.py", "3", "4"),
    ],
)
def test_what_counts(room, name, old, new):
    before = Code("mill", room).digest
    edit(room, name, old, new)
    assert Code("mill", room).digest != before


def test_a_new_module_counts_once_it_is_imported(room):
    before = Code("mill", room).digest
    edit(room, "mill/stones.py", "def turn(): return 2", "from containers import unused\ndef turn(): return 2")
    assert "containers.unused" in Code("mill", room).parts
    assert Code("mill", room).digest != before


def test_a_file_edited_to_the_same_length_and_time_still_counts_after_a_touch(room):
    stones = room / "mill" / "stones.py"
    before = digest_of_python(stones)
    stones.write_text("def turn(): return 7")
    assert digest_of_python(stones) != before


def test_relative_imports_are_resolved(room):
    stones = room / "mill" / "stones.py"
    stones.write_text("from . import main\nfrom .. import shared\nfrom ..kiln.main import weigh")
    found = imported(stones, "containers.mill.stones", "containers")
    assert {"containers.mill.main", "containers.shared", "containers.kiln.main"} <= found
    package = room / "mill" / "__init__.py"
    package.write_text("from .stones import turn\nfrom ..shared import weigh")
    assert {"containers.mill.stones", "containers.shared"} <= imported(package, "containers.mill", "containers")


def test_fields_that_are_absent_or_empty_are_left_out():
    """Python 3.12 added `type_params=[]` to every function, 3.13 stopped writing empty fields: neither may count."""
    import ast

    tree = ast.parse("def f(): return None")
    written = canonical(tree)
    tree.body[0].type_params = []
    assert canonical(tree) == written
    assert "Return(value=Constant())" in written


@pytest.mark.parametrize("stage", [s for s in STAGES if (ROOT / "containers" / s / "main.py").exists()])
def test_every_stage_counts_its_own_files(stage):
    own = {f.name for f in (ROOT / "containers" / stage).glob("*.py")} - {"__init__.py"}
    parts = Code(stage).parts
    assert {f"containers.{stage}.{name[:-3]}" for name in own} <= parts.keys()
    assert "containers.contract" in parts


@pytest.fixture
def loaded(monkeypatch):
    """A stage's code, and a way to pretend that a module was imported from a file since it was read."""
    code = Code("tokenizer")
    code._known = {name for name in sys.modules if name.startswith("containers")}

    def load(name: str, file: Path) -> Code:
        module = ModuleType(name)
        module.__file__ = str(file)
        monkeypatch.setitem(sys.modules, name, module)
        code._known.discard(name)
        return code

    return load


def test_the_child_refuses_what_the_closure_does_not_name(loaded):
    with pytest.raises(CodeMismatch, match=r"containers\.stranger"):
        loaded("containers.stranger", ROOT / "containers" / "out.py").check_imported()


def test_the_child_refuses_another_file_of_the_same_name(loaded, tmp_path):
    original = ROOT / "containers" / "formats.py"
    loaded("containers.formats", original).check_imported()
    (tmp_path / "formats.py").write_text(original.read_text() + "\nLATER = 1\n")
    with pytest.raises(CodeMismatch, match="changed while"):
        loaded("containers.formats", tmp_path / "formats.py").check_imported()
