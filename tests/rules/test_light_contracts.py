"""Every contract, and so every flow's types, imports without torch and its friends."""

import subprocess
import sys

from tests.rules.house import ROOT, STAGES

HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "trl",
    "peft",
    "pyarrow",
    "tokenizers",
    "numpy",
    "prefect",
    "mlflow",
    "bentoml",
)


def test_contracts_import_with_heavy_libraries_blocked() -> None:
    program = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None
import containers.contract
for stage in {STAGES!r}:
    __import__(f"containers.{{stage}}.contract")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
