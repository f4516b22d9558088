"""Cases in a row through three stages at once: the next is prepared and the last is finished
while the device computes.

Knows no torch. At any time one case is being prepared (or waits, prepared), one is computed (or
waits to be handed on) and one is finished: so memory does not grow with the number of cases.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Ready = TypeVar("Ready")
Made = TypeVar("Made")
Result = TypeVar("Result")

LEAVE_S = 5.0
"""How long a stop waits for the case that is being written."""


class Pipeline(Generic[Item, Ready, Made, Result]):
    """Three stages, the middle one in the caller's thread.

    Parameters
    ----------
    prepare : callable
        item -> what `compute` takes; in a thread of its own.
    compute : callable
        (item, prepared) -> what `finish` takes; in the thread that calls `run`.
    finish : callable
        (item, computed) -> result; in a thread of its own.
    finished : callable
        Told (item, result), in the thread that calls `run`.
    crowded : exception type
        What `prepare` raises where there is no room beside the case before. It is called again
        once that case is finished, before the next is begun, and may then not raise it.
    """

    def __init__(
        self,
        prepare: Callable[[Item], Ready],
        compute: Callable[[Item, Ready], Made],
        finish: Callable[[Item, Made], Result],
        finished: Callable[[Item, Result], None],
        crowded: type[Exception] | tuple[()] = (),
    ) -> None:
        self._prepare, self._compute = prepare, compute
        self._finish, self._finished, self._crowded = finish, finished, crowded
        self._last: tuple[Item, Future[Result]] | None = None

    def run(self, items: Sequence[Item]) -> None:
        """Bring all items through.

        What a stage raises passes through once the case before it is finished; on what is no
        Exception (a cancelled job) no thread is waited for longer than `LEAVE_S`.
        """
        try:
            self._run(items)
        except BaseException as error:
            self._leave(None if isinstance(error, Exception) else LEAVE_S)
            raise

    def look(self) -> None:
        """Call now and then while computing: tells of a finished case, raises what it raised."""
        if self._last is not None and self._last[1].done():
            self.settle()

    def settle(self) -> None:
        """Wait until the case before is finished; tells of it, raises what it raised."""
        if self._last is not None:
            (item, finishing), self._last = self._last, None
            self._finished(item, finishing.result())

    def _run(self, items: Sequence[Item]) -> None:
        coming = [_begin(self._prepare, item) for item in items[:1]]
        for index, item in enumerate(items):
            # In lists, so that nothing is held longer than it is used.
            ready = [self._prepared(item, coming.pop())]
            coming = [_begin(self._prepare, following) for following in items[index + 1 :][:1]]
            made = [self._compute(item, ready.pop())]
            self.settle()
            self._last = (item, _begin(self._finish, item, made.pop()))
        self.settle()

    def _prepared(self, item: Item, coming: Future[Ready]) -> Ready:
        try:
            return coming.result()
        except self._crowded:
            self.settle()
        return self._prepare(item)

    def _leave(self, timeout_s: float | None) -> None:
        if self._last is None:
            return
        (item, finishing), self._last = self._last, None
        error = finishing.exception(timeout_s) if _waited(finishing, timeout_s) else None
        if error is None and finishing.done():
            self._finished(item, finishing.result())


def _waited(future: Future[Any], timeout_s: float | None) -> bool:
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    return done.wait(timeout_s)


def _begin(call: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Start a call in a thread that does not keep the process alive."""
    future: Future[Any] = Future()
    held = list(arguments)

    def work() -> None:
        try:
            future.set_result(call(*_taken(held)))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name=getattr(call, "__name__", ""), daemon=True).start()
    return future


def _taken(held: list[Any]) -> list[Any]:
    taken = held[:]
    held.clear()
    return taken
