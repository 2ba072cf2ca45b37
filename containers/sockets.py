"""Where a child or a library that listens gets its Unix socket or its loopback port."""

import secrets
import socket
from pathlib import Path

SOCKETS = Path("/tmp")
"""Not TMPDIR: a socket's path has at most 107 bytes, and a stage folder may lie deep."""
PORTS = range(20_000, 30_000)
"""Below those that Linux and macOS lend to outgoing connections: one of them may be taken before the child listens."""


def free_port() -> int:
    """Return a loopback port that is free now; raises OSError when none is."""
    for _ in PORTS:
        port = secrets.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port from {PORTS.start} to {PORTS.stop - 1} on 127.0.0.1")
