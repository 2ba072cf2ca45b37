"""Learn the language."""

from containers.contract import Dataset, Model, Tokenizer
from containers.pretrain.contract import STAGE, PretrainConfig, PretrainInputs
from infra.orchestration import stage_task
from infra.stage_runner import run_stage


@stage_task
def pretrain(corpus: Dataset, tokenizer: Tokenizer, config: PretrainConfig, start: Model | None = None) -> Model:
    """Predict the next token of the corpus, from random weights or from `start`."""
    return run_stage(STAGE, config, PretrainInputs(corpus=corpus, tokenizer=tokenizer, start=start)).model
