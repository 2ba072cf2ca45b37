"""Group-relative policy optimisation: a policy answers problems that can be checked, and does more of what was right.

Run by hand on a stage folder:  python -m containers.entrypoint FOLDER
"""

from typing import Any

from transformers.utils.logging import disable_progress_bar

from containers.contract import StageError
from containers.grpo.config import AnswerReward, FormatReward, FunctionReward, GRPOConfig, LengthReward
from containers.grpo.contract import GRPOInputs, GRPOOutputs
from containers.grpo.functions import Own
from containers.grpo.problems import HeldOut, to_learn
from containers.grpo.rewards import Answers, Form, Judged, Length, Rewarding, check_cases
from containers.grpo.trainer import GroupTrainer
from containers.judges.judge import EndpointJudge
from containers.online.reporter import OnlineReporter, train
from containers.out import Out
from containers.policy import Policy


def run(config: GRPOConfig, inputs: GRPOInputs, out: Out) -> GRPOOutputs:
    """Train `inputs.policy` on the train split; raises StageError for rewards, problems or a policy that cannot be."""
    disable_progress_bar()  # the host draws its own from out.progress
    judge = EndpointJudge(config.judge, inputs.recorded, out) if config.judge else None
    rewards = rewards_of(config, inputs, judge, out)
    for reward in rewards:
        check_cases(reward, reward.cases)
    policy = Policy.load(inputs.policy, config, out, referenced=config.beta > 0)
    context = int(policy.model.config.max_position_embeddings)
    rows = to_learn(inputs.problems, config, policy.chat, context, out)
    held_out = HeldOut.of(inputs.problems, config, policy.chat, context)

    parts = {f"rewards/{reward.__name__}/mean": f"reward_{reward.__name__}" for reward in rewards}
    reporter = OnlineReporter(out, config, held_out.measure, "exact_match", parts)
    before = train(GroupTrainer(policy, config, rows, rewards, out), reporter)
    if judge:
        judge.close()

    out.record(**{f"{name}_before": value for name, value in before.items()}, train_seconds=reporter.seconds)
    made = policy.save(out)
    out.write_card(
        method=config.weights.method,
        steps=config.steps,
        problems=len(rows),
        rewards=[reward.model_dump(mode="json", exclude={"path"}) for reward in config.rewards],
        samples=held_out.samples,
        **{name: float(value) for name, value in out.recorded.items()},
    )
    return GRPOOutputs(model=made)


def rewards_of(config: GRPOConfig, inputs: GRPOInputs, judge: EndpointJudge | None, out: Out) -> list[Rewarding]:
    """Return the reward functions, in the order of the recipe; raises StageError for two of one name."""
    made: list[Any] = []
    for number, reward in enumerate(config.rewards):
        if isinstance(reward, AnswerReward):
            made.append(Answers(reward))
        elif isinstance(reward, FormatReward):
            made.append(Form(reward, config.instruction))
        elif isinstance(reward, LengthReward):
            made.append(Length(reward))
        elif isinstance(reward, FunctionReward):
            made.append(Own(reward, inputs.functions, out))
        else:
            assert judge
            made.append(Judged(reward, judge, number))
    names = [reward.__name__ for reward in made]
    if len(set(names)) < len(names):
        raise StageError(f"rewards: two of one name among {', '.join(names)}: each needs a curve of its own")
    return made
