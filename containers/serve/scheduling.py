"""Short slices of the processor for the threads that talk to clients, beside an engine that keeps every core busy.

Linux (6.12 and later) lets a thread that asks for a short slice go before one with a longer slice as soon as it wakes,
and gives it no more time for that: a token is handed on within 0.2 ms, where it would wait for the engine's slice to
end, up to 4 ms. Needs no privilege. See sched_setattr(2), and EEVDF in the kernel's documentation of its scheduler.
"""

import ctypes
import os
import platform
import struct

SLICE_NANOSECONDS = 100_000
"""The shortest that Linux gives."""
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The system call's number; C libraries have no function for it yet."""
KEEP_POLICY = 0x08


def take_short_slices() -> bool:
    """Ask for short slices for this thread and those that it begins; return whether the system agreed.

    A kernel older than 6.12 agrees and does nothing; where there is no such call, everything stays as it is.
    """
    number = SCHED_SETATTR.get(platform.machine()) if platform.system() == "Linux" else None
    if number is None:
        return False
    # struct sched_attr: size, policy, flags, nice, priority, runtime (the slice, here), deadline, period
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = struct.pack("=IIQiIQQQ", 48, 0, KEEP_POLICY, nice, 0, SLICE_NANOSECONDS, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, 0, wanted, 0) == 0)
