"""Whether a new model takes the place of the served one: both answer the same held-out questions, now."""

from typing import Literal, NamedTuple

from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from containers.contract import Bundle, Endpoint, Scores
from containers.evaluate.contract import EvaluateConfig
from flows.chapters import Candidate, evaluate_each
from infra.ancestry import model_in
from infra.flow_log import attempt
from infra.launch import current_launch
from infra.report.changes import between
from infra.report.shape import ChangeLine
from infra.service import wanted_bundle


class Verdict(NamedTuple):
    """What becomes of a candidate, and why."""

    name: Literal["Unchanged", "Replaced", "Kept"]
    reason: str
    bundle: Bundle
    """The one to serve."""
    scores: tuple[Scores, ...] = ()
    """Those of the served model, where it was measured."""


def compared_with_served(made: Candidate, config: EvaluateConfig) -> Verdict:
    """Measure the served model on the candidate's held-out sets; the candidate is refused for any measure it loses on.

    A share is lost when significantly more questions were lost than gained (McNemar), another measure when it leaves
    the served model's 95% interval. Raises StageError where the served model is no longer in the store.
    """
    launch = current_launch()
    served = wanted_bundle(launch.settings)
    if served is None:
        return Verdict("Replaced", "nothing was served before", made.bundle)
    if served.digest == made.bundle.digest:
        said = "nothing is new: the served model is what these sources and this recipe make"
        return Verdict("Unchanged", said, served)
    scores = evaluate_each({"served": model_in(launch.store, served)}, made.materials, config)
    lines = list(between(scores[0], scores_of(made)))
    attempt(lambda: show(lines))
    worse = [line for line in lines if line.verdict == "worse"]
    if worse:
        said = ", ".join(f"{line.measure} {line.before:.3f} -> {line.after:.3f}" for line in worse)
        return Verdict("Kept", f"the new model is worse, so the served one stays: {said}", served, scores)
    return Verdict("Replaced", f"the new model is worse in none of {len(lines)} measures", made.bundle, scores)


def scores_of(made: Candidate) -> Scores:
    """Return the scores of the model in the candidate's bundle, among those of every model of the run."""
    store = current_launch().store
    asked = {s: store.load(s.path.parent.parent.name).request.inputs["model"]["digest"] for s in made.scores}
    return next(scores for scores, digest in asked.items() if digest == made.model.digest)


def show(lines: list[ChangeLine]) -> None:
    """Show the comparison on the run's page in Prefect."""
    rows = [
        {"measure": line.measure, "served": f"{line.before:.4g}", "new": f"{line.after:.4g}", "verdict": line.verdict}
        for line in lines
    ]
    create_table_artifact(rows, key="served-and-new", description="The served model and the new one, same questions")


def ended(verdict: Verdict, endpoint: Endpoint) -> State[Endpoint]:
    """Return the state that a flow run ends in: its name says what was done, its message why."""
    return Completed(name=verdict.name, message=verdict.reason, data=endpoint)
