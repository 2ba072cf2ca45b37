"""Write down what was done."""

from containers.contract import Endpoint, Scores
from infra.orchestration import stage_task
from infra.report.writing import write_report


@stage_task
def report(endpoint: Endpoint, scores: tuple[Scores, ...]) -> Endpoint:
    """Write the run's page and JSON, and hand on the endpoint that answers."""
    write_report(endpoint, scores)
    return endpoint
