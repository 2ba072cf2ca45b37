"""Sets of adapters take turns: never two at once, the longest wait first, and nobody starves."""

import threading
import time
from collections.abc import Callable

from containers.serve.backends.turns import Turns

A, B = ("a",), ("b",)


class Hall:
    """Answers that go on until they are let go, and who is at it."""

    def __init__(self) -> None:
        self.turns, self.inside, self.threads = Turns(), list[tuple[str, ...]](), list[threading.Thread]()
        self.order: list[tuple[str, ...]] = []

    def enter(self, adapters: tuple[str, ...]) -> Callable[[], None]:
        """Ask for an answer, in a thread of its own; return what ends it."""
        over = threading.Event()

        def answer() -> None:
            with self.turns.of(adapters):
                self.inside.append(adapters)
                self.order.append(adapters)
                over.wait(10)
                self.inside.remove(adapters)

        self.threads.append(threading.Thread(target=answer))
        self.threads[-1].start()
        time.sleep(0.03)
        return over.set

    def settled(self, wanted: list[tuple[str, ...]]) -> bool:
        """Whether those inside become `wanted` within a second, and stay it."""
        deadline = time.monotonic() + 1
        while sorted(self.inside) != sorted(wanted) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.03)
        return sorted(self.inside) == sorted(wanted)


def test_one_set_answers_side_by_side_and_another_waits() -> None:
    hall = Hall()
    ends = [hall.enter(A), hall.enter(A), hall.enter(B)]
    assert hall.settled([A, A])
    ends[0]()
    assert hall.settled([A])
    ends[1]()
    assert hall.settled([B])
    ends[2]()
    assert hall.settled([])


def test_a_stream_of_one_set_does_not_starve_another() -> None:
    hall = Hall()
    first = hall.enter(A)
    ends = [hall.enter(B), hall.enter(A), hall.enter(B), hall.enter(A)]
    assert hall.settled([A]), "a newcomer must not go before one who waits for another set"
    first()
    assert hall.settled([B, B])
    ends[0](), ends[2]()
    assert hall.settled([A, A])
    ends[1](), ends[3]()
    assert hall.settled([])
    assert hall.order == [A, B, B, A, A]


def test_an_answer_that_fails_makes_room() -> None:
    turns = Turns()
    try:
        with turns.of(A):
            raise RuntimeError("the engine failed")
    except RuntimeError:
        pass
    done = threading.Event()

    def answer() -> None:
        with turns.of(B):
            done.set()

    threading.Thread(target=answer, daemon=True).start()
    assert done.wait(5)
