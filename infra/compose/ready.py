"""The last words of `docker compose up`: where everything is, and how to log in.

python -m infra.compose.ready
"""

import os

TEXT = """
Slipway is up.

  Prefect  http://localhost:{PREFECT_PORT}   start and schedule runs (Deployments); log in as  slipway:PASSWORD
  MLflow   http://localhost:{MLFLOW_PORT}   metrics and models; user slipway
  model    http://localhost:{SERVE_PORT}   once a run has packaged one: docker compose --profile serve up -d

  The passwords:  docker compose exec prefect-worker head /run/slipway/prefect_password /run/slipway/mlflow_password
"""


def main() -> None:
    """Print them."""
    print(TEXT.format_map(os.environ), flush=True)


if __name__ == "__main__":
    main()
