"""Make the passwords of the compose stack, once: random ones, or those of the environment (.env).

python make_secrets.py FOLDER     (standard library only)

One that is there is kept, so that a second start changes nothing; one of the environment always wins.
"""

import os
import secrets
import sys
from pathlib import Path

NAMES = ("postgres_password", "prefect_password", "mlflow_password", "mlflow_session_key", "grafana_password")


def main(folder: Path) -> None:
    """Write one file a secret; their folder is a volume that only the services mount."""
    for name in NAMES:
        file, given = folder / name, os.environ.get(f"SLIPWAY_{name.upper()}", "")
        if given or not file.is_file():
            file.write_text(given or secrets.token_urlsafe(24), encoding="utf-8")
        file.chmod(0o444)
    print(f"{len(NAMES)} secrets are in place")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
