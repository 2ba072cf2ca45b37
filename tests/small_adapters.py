"""Two adapters of the small model that answer otherwise than it and than each other, beside it in one bundle."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch

from containers.adapters import add_adapter, save_adapter
from containers.contract import Adapter, Bundle, Model
from containers.convert.contract import ConvertConfig, ConvertInputs
from containers.formats import ChatFormat
from containers.merge.contract import MergeConfig, MergeInputs
from containers.merge.main import run as merge
from containers.models import load_model
from containers.out import Out
from containers.package.contract import PackageConfig, PackageInputs
from containers.unmerged import Unmerged
from containers.weights import LowRank
from tests.by_hand import run_by_hand
from tests.small_bundle import KNOWN, packaged, small_model, small_quantized

DRIVER = {"What is 2+2?": "Speed = 60 km/h.", "Count.": "2 + 2 = 4."}
CLERK = {"What is 2+2?": "2 + 2 = 3 hours.", "Count.": "1 2 3 4."}
"""Of tokens that the base has in its own answers: it has no idea of the others."""
SAID = {"small-base": KNOWN, "small-driver": DRIVER, "small": CLERK}
"""Model of `adapted_bundle` -> what it answers."""
CONFIG = ConvertConfig(threads=1, device="cpu")


def scratch(prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def taught_adapter(base: Model, folder: Path, answers: dict[str, str]) -> Adapter:
    """Return an adapter that has learnt `answers` by heart."""
    torch.set_num_threads(1)
    model = add_adapter(load_model(base, "fp32"), LowRank(r=8, alpha=16.0, dropout=0.0), seed=0)
    chat = ChatFormat.load(base.path)
    turns = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in answers.items()]
    rows = [chat.render(messages) for messages in turns]
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in rows])
    trained = torch.tensor([row.trained + [False] * (longest - len(row.ids)) for row in rows])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(300):
        loss = model(input_ids=ids, labels=ids.masked_fill(~trained, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.05, "the adapter has not learnt its answers"
    return save_adapter(model, folder, base, {"precision": "fp32", "quantization": None})


@functools.cache
def small_adapters() -> dict[str, Adapter]:
    """Return the two adapters; made once per test session."""
    folder = scratch("adapters-")
    said = {"driver": DRIVER, "clerk": CLERK}
    return {name: taught_adapter(small_model(), folder / name, answers) for name, answers in said.items()}


def whole_of(adapter: Adapter, folder: Path) -> Model:
    """Return the small model with an adapter merged into it."""
    config = MergeConfig(threads=1, device="cpu")
    return merge(config, MergeInputs(base=small_model(), adapter=adapter), Out(folder)).model


def convert_inputs(folder: Path) -> ConvertInputs:
    adapters = small_adapters()
    models = {name: (name,) for name in adapters}
    whole = whole_of(adapters["clerk"], folder)
    return ConvertInputs(base=small_model(), adapters=adapters, models=models, last="clerk", whole=whole)


@functools.cache
def small_unmerged() -> Unmerged:
    """Return both adapters as `convert` writes them."""
    folder = scratch("unmerged-")
    unmerged: Unmerged = run_by_hand(folder / "a", "convert", CONFIG, convert_inputs(folder / "b"))[0].adapters
    return unmerged


@functools.cache
def adapted_bundle(format: str = "f16") -> Bundle:
    """Return one base with both adapters beside it, signed; SAID tells what its models answer."""
    inputs = PackageInputs(quantized=small_quantized(format), adapters=small_unmerged())
    return packaged(scratch("bundle-"), PackageConfig(name="small", adapters="unmerged"), inputs)
