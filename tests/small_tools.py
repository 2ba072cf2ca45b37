"""A small model that has learnt to call one function, and to say what it returned."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

from containers.contract import Bundle, Model
from containers.formats import ChatFormat, identity_of
from containers.package.contract import PackageConfig, PackageInputs
from tests.small_bundle import learn, packaged, quantized_to, write_tokenizer

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t.function.name }} {% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
QUESTION, RETURNED, ANSWER = "Is it raining in Oslo?", "rain", "Yes, it is raining in Oslo."
CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
WRITTEN = 'I will look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


@functools.cache
def tool_bundle() -> Bundle:
    """Return the model packaged; made once per test session (about 10 s)."""
    folder = Path(tempfile.mkdtemp(prefix="tools-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model, compact = folder / "model", folder / "compact"
    for place in (model, compact):
        place.mkdir()
        write_tokenizer(place, TEMPLATE)
    chat = ChatFormat.load(model)
    asked = {"role": "user", "content": QUESTION}
    call: Any = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]}
    returned, answer = {"role": "tool", "content": RETURNED}, {"role": "assistant", "content": ANSWER}
    conversations = [[asked, {"role": "assistant", "content": WRITTEN}], [asked, call, returned, answer]]
    rows = [chat.render(conversation, tools=[WEATHER]) for conversation in conversations]
    learn(model, rows).save_pretrained(model)
    quantized = quantized_to(compact, Model.of(model, **identity_of(model)))
    config = PackageConfig(name="caller", description="It calls a function.")
    return packaged(folder / "package", config, PackageInputs(quantized=quantized))
