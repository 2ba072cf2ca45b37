"""Where a child or a library that listens gets its Unix socket."""

from pathlib import Path

SOCKETS = Path("/tmp")
"""Not TMPDIR: a socket's path has at most 107 bytes, and a stage folder may lie deep."""
