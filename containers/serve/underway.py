"""The answers to one request while the engine makes them."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from containers.serve.jobs import EngineError, Piece

Departure = Callable[[], Coroutine[Any, Any, None]]
"""Returns when the client has gone."""


class UnderWay:
    """The pieces of `answers` answers, as they come from their threads; iterate over them on the event loop.

    They begin with the iteration. Closing it stops each answer at its next token; so does any end of the iteration.
    """

    def __init__(self, answers: int, at_once: bool, begin: Callable[["UnderWay"], None]) -> None:
        """Expect so many answers once they `begin`; needs a running event loop."""
        self.at_once = at_once
        """Whether none of them will wait or be refused: what still goes wrong is the engine's fault."""
        self.gone = threading.Event()
        self._begin: Callable[[UnderWay], None] | None = begin
        self._unfinished = answers
        self._inbox: asyncio.Queue[Piece | EngineError] = asyncio.Queue()
        self._head: Piece | None = None
        self._loop = asyncio.get_running_loop()
        self.tell = partial(self._loop.call_soon_threadsafe, self._inbox.put_nowait)
        """Takes a piece, or what ends the answers, in any thread."""
        self._on_close: list[Callable[[], Any]] = []

    @property
    def done(self) -> bool:
        """Whether the last piece of every answer has been heard."""
        return not self._unfinished

    def end_with(self, error: EngineError) -> None:
        """Stop, and raise the error where the pieces are read."""
        self.gone.set()
        self._inbox.put_nowait(error)

    def watch(self, departure: Departure, deadline: float) -> None:
        """End when the client goes, and after `deadline` seconds."""
        late = EngineError(f"the answer was not done within {deadline:g} s", 504)
        left = self._loop.create_task(departure())
        left.add_done_callback(lambda _: self.end_with(EngineError("the client closed the connection", 499)))
        self.when_closed(left.cancel)
        self.when_closed(self._loop.call_later(deadline, self.end_with, late).cancel)

    def when_closed(self, do: Callable[[], Any]) -> None:
        """Call `do` at the end."""
        self._on_close.append(do)

    async def first(self) -> None:
        """Wait for the first piece, which the iteration still gives; raises EngineError."""
        self._head = await anext(self)

    def __aiter__(self) -> "UnderWay":
        return self

    async def __anext__(self) -> Piece:
        if begin := self._begin:
            self._begin = None
            begin(self)
        if head := self._head:
            self._head = None
            return head
        if self.done:
            raise StopAsyncIteration
        try:
            piece = await self._inbox.get()
        except asyncio.CancelledError:
            self.close()
            raise
        if isinstance(piece, EngineError):
            self.close()
            raise piece
        self._unfinished -= piece.finish is not None
        if self.done:
            self.close()
        return piece

    def close(self) -> None:
        """Stop what is not done."""
        self.gone.set()
        while self._on_close:
            self._on_close.pop()()
