"""The `slipway` command as a person runs it, for tests of whole lines."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from containers.sockets import free_port
from infra.keys import local_key
from infra.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


class Line:
    """A home of its own, a recipe (a name or a path), and the command."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self.home = folder / "home"
        self.recipe = recipe
        self.port = free_port()

    def slipway(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SLIPWAY_HOME": str(self.home), "COLUMNS": "200"}
        command = [sys.executable, "-m", "flows.cli", *words]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    def run(self, *overrides: str) -> subprocess.CompletedProcess[str]:
        return self.slipway("run", self.recipe, f"serve.port={self.port}", *overrides)

    @property
    def client(self) -> httpx.Client:
        """Speaks to what is served, with this machine's own key."""
        key = local_key(Settings(home=self.home))
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=60)

    def report(self) -> dict[str, Any]:
        shown = self.slipway("report", "--json")
        assert shown.returncode == 0, shown.stderr
        found: dict[str, Any] = json.loads(shown.stdout)
        return found
