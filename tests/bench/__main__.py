"""Every benchmark in turn, each in a process of its own: `make bench`, or `python -m tests.bench pretrain sft`.

A benchmark measures both sides in one run and prints their ratio; none of them is a test.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LONG = {"learning_curve"}
"""Run by name only: it trains a model per budget."""


def main(names: list[str]) -> int:
    """Run the named benchmarks (all but the long ones by default); return the worst exit code."""
    known = {file.stem for file in HERE.glob("*.py")} - {"__init__", "__main__"}
    unknown = set(names) - known
    if unknown:
        print(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}", file=sys.stderr)
        return 2
    worst = 0
    for name in names or sorted(known - LONG):
        print(f"\n== {name}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
