"""The Modelfile for Ollama: rendered by Go's own text/template it says what the chat template says."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from containers.contract import StageError
from containers.formats import ChatFormat
from infra.modelfile import modelfile_of, text_of
from tests.small_bundle import TEMPLATE, write_tokenizer

HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>\n\n{{ m.content | trim }}<|endoftext|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_end|>\n\n{% endif %}"
)
"""As Llama 3 has it: a beginning of text, headers, no line break after a turn."""
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou say \"yes\" & \\no.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
"""As Qwen 2.5 has it: words of its own where the chat brings none; quotes in them, and an answer that is begun."""
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>{{ m.content }}\n{% else %}{{ m.content }}<|im_end|>"
    "{% endif %}{% endfor %}"
)
COUNTING = "{% for m in messages %}<|im_start|>{{ loop.index }} {{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
FORGETFUL = "{% for m in messages[-1:] %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
PROGRAM = """
package main

import (
    "encoding/json"
    "os"
    "text/template"
)

type Message struct{ Role, Content string }

func main() {
    var asked struct {
        Template string
        Chats    [][]Message
    }
    if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
        panic(err)
    }
    parsed := template.Must(template.New("").Parse(asked.Template))
    for _, messages := range asked.Chats {
        if err := parsed.Execute(os.Stdout, map[string]any{"Messages": messages}); err != nil {
            panic(err)
        }
        os.Stdout.Write([]byte{0})
    }
}
"""
TURNS = [
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": 'Four: "4".\n\n{{ .Role }} \u00e9\U0001f30a'},
    {"role": "user", "content": "And again,\nplease <b>?"},
]


def chat_with(folder: Path, template: str, begins: bool = False) -> ChatFormat:
    write_tokenizer(folder, template)
    names = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "bos_token": "<|im_end|>"}))
    if begins:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|im_end|> $A", special_tokens=[("<|im_end|>", 2)]
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    return ChatFormat.load(folder)


def template_in(modelfile: str) -> str:
    found = re.search(r'^TEMPLATE """(.*?)"""$', modelfile, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def rendered_by_go(template: str, chats: list[list[dict[str, str]]], folder: Path) -> list[str]:
    (folder / "main.go").write_text(PROGRAM)
    asked = {"Template": template, "Chats": chats}
    done = subprocess.run(
        ["go", "run", "main.go"], cwd=folder, input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


@pytest.mark.skipif(not shutil.which("go"), reason="Go is not installed, so nothing here renders Go templates")
@pytest.mark.parametrize("template", [TEMPLATE, HEADERS, DEFAULT_SYSTEM, NO_SYSTEM])
@pytest.mark.parametrize("begins", [False, True])
def test_go_renders_what_the_chat_template_renders(tmp_path: Path, template: str, begins: bool) -> None:
    chat = chat_with(tmp_path, template, begins)
    leads: list[list[dict[str, str]]] = [[]]
    if template is not NO_SYSTEM:
        leads.append([{"role": "system", "content": "Be brief."}])
    chats = [lead + TURNS[:count] for lead in leads for count in (1, 3)]
    wanted = [text_of(chat, messages, open_turn=True) for messages in chats]
    if begins:
        wanted = [text.removeprefix("<|im_end|>") for text in wanted]
    assert rendered_by_go(template_in(modelfile_of(chat, 384)), chats, tmp_path) == wanted


def test_a_modelfile_says_weights_template_stops_and_context(tmp_path: Path) -> None:
    chat = chat_with(tmp_path, TEMPLATE)
    lines = modelfile_of(chat, 384).splitlines()
    assert lines[0] == "FROM ./model.gguf"
    assert {line for line in lines if line.startswith("PARAMETER stop")} == {
        f"PARAMETER stop {json.dumps(chat.decode([i], control=True))}" for i in chat.stop_ids
    }
    assert "PARAMETER num_ctx 384" in lines
    user = '{{ if eq .Role "user" }}{{ "<|im_start|>user\\n" }}{{ .Content }}{{ "<|im_end|>\\n" }}{{ end }}'
    assert user in lines[1]
    assert lines[1].endswith('{{ end }}{{ "<|im_start|>assistant\\n" }}"""')


def test_what_llama_cpp_puts_before_every_prompt_is_not_put_there_twice(tmp_path: Path) -> None:
    for begins in (False, True):
        (tmp_path / str(begins)).mkdir()
        text = modelfile_of(chat_with(tmp_path / str(begins), HEADERS, begins), 384)
        assert text.count('{{ "<|im_end|><|im_start|>system') == (0 if begins else 1)


@pytest.mark.parametrize("template", [COUNTING, FORGETFUL])
def test_a_template_that_cannot_be_said_is_refused(tmp_path: Path, template: str) -> None:
    with pytest.raises(StageError, match=r"which Ollama's templates cannot say: write the Modelfile by hand"):
        modelfile_of(chat_with(tmp_path, template), 384)
