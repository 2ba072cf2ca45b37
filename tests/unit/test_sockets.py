"""A free port is none that another program has, nor one that the kernel lends to an outgoing connection."""

import secrets
import socket
from pathlib import Path

import pytest

from containers.sockets import PORTS, free_port

LENT = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_taken_port_is_passed_over(monkeypatch):
    free = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        drawn = iter([taken.getsockname()[1], free])
        monkeypatch.setattr(secrets, "choice", lambda _: next(drawn))
        assert free_port() == free


@pytest.mark.skipif(not LENT.exists(), reason="the range of outgoing connections is read from Linux")
def test_it_is_never_lent_to_an_outgoing_connection():
    first, last = map(int, LENT.read_text().split())
    assert not set(PORTS) & set(range(first, last + 1))
