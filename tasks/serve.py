"""Let it answer."""

from containers.contract import Bundle, Endpoint
from containers.serve.contract import ServeConfig
from infra.launch import current_launch
from infra.orchestration import stage_task
from infra.service import start_service


@stage_task
def serve(bundle: Bundle, config: ServeConfig) -> Endpoint:
    """Serve the bundle behind an OpenAI-compatible API: desired state, checked by health and never cached."""
    return start_service(bundle, config, current_launch().settings)
