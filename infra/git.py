"""What git says of the checkout."""

import subprocess
from pathlib import Path


def commit_of(root: Path) -> str:
    """Return the checkout's commit, with `+` when it has changes; empty outside of git."""
    asked = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
