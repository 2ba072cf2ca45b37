"""The entry of the host's containers: take this role's secrets, let go of root, become the command.

python enter.py ROLE COMMAND...     (standard library only)

Only the worker and the serving side begin as root, and only to become the owner of the home that is mounted; the
worker keeps the group of the Docker socket.
"""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

SECRETS = Path("/run/slipway")
SOCKET = Path("/var/run/docker.sock")
USER = 10001
"""Who owns a home that Docker made (as root)."""
AUTH = """[mlflow]
default_permission = READ
database_uri = {database}
admin_username = slipway
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def secret(name: str) -> str:
    """Return a secret that `make_secrets.py` made."""
    return (SECRETS / name).read_text(encoding="utf-8").strip()


def database(name: str, driver: str = "postgresql+psycopg2") -> str:
    """Return the address of a database."""
    return f"{driver}://slipway:{secret('postgres_password')}@postgres:5432/{name}"


def prefect_server() -> dict[str, str]:
    """Return what Prefect's server needs."""
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database("prefect", "postgresql+asyncpg"),
        "PREFECT_SERVER_API_AUTH_STRING": f"slipway:{secret('prefect_password')}",
    }


def mlflow() -> dict[str, str]:
    """Return what MLflow's server needs; its users live in a database of their own."""
    config = Path("/tmp/auth.ini")
    config.touch(mode=0o600)
    config.write_text(AUTH.format(database=database("mlflow_auth"), password=secret("mlflow_password")))
    return {
        "MLFLOW_BACKEND_STORE_URI": database("mlflow"),
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_PASSWORD": secret("mlflow_password"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secret("mlflow_session_key"),
    }


def worker() -> dict[str, str]:
    """Return what a client of both needs."""
    return {
        "PREFECT_API_AUTH_STRING": f"slipway:{secret('prefect_password')}",
        "MLFLOW_TRACKING_USERNAME": "slipway",
        "MLFLOW_TRACKING_PASSWORD": secret("mlflow_password"),
    }


ROLES: dict[str, Callable[[], dict[str, str]]] = {
    "prefect-server": prefect_server, "mlflow": mlflow, "worker": worker, "serve": dict, "plain": dict,
}  # fmt: skip


def become_owner(home: Path) -> None:
    """Drop root for good: be the owner of the home, in the group of the Docker socket where it is mounted."""
    home.mkdir(parents=True, exist_ok=True)
    if home.stat().st_uid == 0:
        os.chown(home, USER, USER)
    owner = home.stat()
    groups = [SOCKET.stat().st_gid] if SOCKET.exists() and stat.S_ISSOCK(SOCKET.stat().st_mode) else []
    os.setgroups(groups)
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def main(role: str, command: list[str]) -> None:
    """Become `command` in the given role."""
    os.environ.update(ROLES[role]())
    if os.getuid() == 0:
        become_owner(Path(os.environ["SLIPWAY_HOME"]))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
