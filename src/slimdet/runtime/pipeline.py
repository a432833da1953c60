"""Work that threads do ahead, in order and in bounds: Pillow and the engines let other threads run meanwhile."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

THREADS = max(2, min(4, os.cpu_count() or 1))  # of each stage; more would hold more images at once


def in_order(function: Callable[[Item], Value], items: Iterable[Item], ahead: int) -> Generator[Future[Value]]:
    """Yield a future of `function(item)` for each item, in the items' order; each holds a value or what was raised.

    Items are taken where this is called, functions run in threads. `ahead` more are taken than were asked for, at most;
    with none, an item is taken when it is asked for, and nothing runs in a thread. Close it (`contextlib.closing`) to
    leave early: it waits for what runs and forgets the rest.
    """
    pool = ThreadPoolExecutor(THREADS, "slimdet")
    start = pool.submit if ahead else _done
    waiting: deque[Future[Value]] = deque()
    try:
        for item in items:
            waiting.append(start(function, item))
            del item  # what was handed out is not held here
            if len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown()


def _done(function: Callable[[Item], Value], item: Item) -> Future[Value]:
    future: Future[Value] = Future()
    try:
        future.set_result(function(item))
    except Exception as error:
        future.set_exception(error)
    return future
