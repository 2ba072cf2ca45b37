"""Short slices: for the threads that ask and those they begin, and for no other; the niceness stays."""

import ctypes
import os
import platform
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from containers.serve.scheduling import SCHED_SETATTR, SLICE_NANOSECONDS, take_short_slices

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or tuple(map(int, platform.release().split(".")[:2])) < (6, 12),
    reason="Linux 6.12 and later has slices that a thread can ask for",
)


def slice_and_nice():
    """What sched_getattr(2), whose number follows that of sched_setattr, says of this thread."""
    told = ctypes.create_string_buffer(48)
    number = SCHED_SETATTR[platform.machine()] + 1
    assert ctypes.CDLL(None).syscall(number, 0, told, 48, 0) == 0
    _, _, _, nice, _, runtime, _, _ = struct.unpack("=IIQiIQQQ", told.raw)
    return runtime, nice


def in_a_thread(*steps):
    with ThreadPoolExecutor(1) as thread:
        return [thread.submit(step).result() for step in steps]


def test_a_thread_and_those_it_begins_get_short_slices():
    agreed, (own, _), begun = in_a_thread(take_short_slices, slice_and_nice, lambda: in_a_thread(slice_and_nice))
    assert agreed
    assert own == begun[0][0] == SLICE_NANOSECONDS


def test_threads_begun_before_keep_theirs():
    with ThreadPoolExecutor(1) as before:
        usual = before.submit(slice_and_nice).result()
        in_a_thread(take_short_slices)
        assert before.submit(slice_and_nice).result() == usual
    assert usual[0] > SLICE_NANOSECONDS


def test_the_niceness_stays():
    def nicer():
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 7)

    assert in_a_thread(nicer, take_short_slices, slice_and_nice)[2] == (SLICE_NANOSECONDS, 7)


def test_elsewhere_everything_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert in_a_thread(take_short_slices, slice_and_nice)[0] is False
