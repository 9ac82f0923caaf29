"""Threads that work on what is handed to them: as many as the distance to the store makes useful."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from .s3 import S3

FIRST_THREADS = 2  # before anything has been answered, and where answers come at once
NEAR_THREADS, FAR_THREADS = 16, 64  # at the most on this machine, at the least where answers take their time
MOST_THREADS = 128
FAR_S = 0.002  # an answer that is never quicker comes from afar
THREAD_S = 0.0002  # there, a thread for each such part of the time that an answer takes
NEAR_THREAD_S = 0.0001  # and here: threads that only wait for the interpreter cost more than they bring

WAKE_S = 0.25
AHEAD = 4  # items for each thread that `each` takes in advance

T = TypeVar("T")
R = TypeVar("R")


def taken(queue: SimpleQueue[T]) -> T:
    """The next thing of a queue, waited for in the main thread so that no signal is missed.

    A signal that comes just before a wait begins does not end it: so no wait is for ever.
    """
    while True:
        try:
            return queue.get(timeout=WAKE_S)
        except Empty:
            continue


def each(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[tuple[T, R | Exception]]:
    """Do `work` on every item, several at a time: each item and what came of it, in order.

    What a piece of work raises takes the place of its result; it does not hold up the others. Items are taken only
    as results are. Whoever stops iterating need not wait for what is still at work.
    """
    tasks: SimpleQueue[list[Any] | None] = SimpleQueue()
    stopped = Event()

    def run() -> None:
        while (task := tasks.get()) is not None:
            if stopped.is_set():
                return
            try:
                task[1] = work(task[0])
            except Exception as error:
                task[1] = error
            task[2].set()

    source = iter(items)
    pending: deque[list[Any]] = deque()
    started = 0
    more = True
    try:
        while more or pending:
            while more and len(pending) < threads * AHEAD:
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                    break
                pending.append([item, None, Event()])
                tasks.put(pending[-1])
                if started < min(threads, len(pending)):
                    Thread(target=run, daemon=True).start()
                    started += 1
            if pending:
                first = pending[0]
                first[2].wait()
                pending.popleft()
                yield first[0], first[1]
    finally:
        stopped.set()
        for _ in range(started):
            tasks.put(None)


class Pool(Generic[T]):
    """Runs `work` on items, in any order, in threads that are started as they are needed.

    `work` deals with its own errors; where it returns False its thread ends.
    """

    def __init__(self, work: Callable[[T], bool], s3: S3, most: int | None = None) -> None:
        self._work, self._s3, self._given = work, s3, most
        self._tasks: SimpleQueue[tuple[T] | None] = SimpleQueue()
        self._threads: list[Thread] = []

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    def submit(self, item: T) -> int:
        """Hand over an item: how many wait now."""
        self._tasks.put((item,))
        waiting = self._tasks.qsize()
        if (waiting > 1 or not self._threads) and len(self._threads) < self.most():
            self._start()
        return waiting

    def share(self, most: int) -> list[T]:
        """Up to `most` further items for the thread that asks, where that leaves as many for each of the others."""
        items: list[T] = []
        wanted = min(most, self._tasks.qsize() // self.most())
        while len(items) < wanted:
            try:
                task = self._tasks.get_nowait()
            except Empty:
                break
            if task is None:
                self._tasks.put(None)
                break
            items.append(task[0])
        return items

    def waiting(self) -> int:
        """How many items wait."""
        return self._tasks.qsize()

    def close(self) -> None:
        """Let the threads end when all is done."""
        for _ in self._threads:
            self._tasks.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait for the threads to end, after `close`, but not for longer than that."""
        until = monotonic() + timeout_s
        for thread in self._threads:
            if thread.ident is not None:  # a signal may have come just before it was started
                thread.join(max(0.0, until - monotonic()))

    def most(self) -> int:
        """How many threads there may be by now."""
        if self._given:
            return self._given
        quickest = self._s3.quickest_s
        if quickest is None:
            return FIRST_THREADS
        if quickest < FAR_S:
            # What answers at once when it is asked may still take its time to store.
            slowest = max(self._s3.quickest_by_method.values())
            return max(FIRST_THREADS, min(NEAR_THREADS, int(slowest / NEAR_THREAD_S)))
        return max(FAR_THREADS, min(MOST_THREADS, int(quickest / THREAD_S)))

    def _start(self) -> None:
        thread = Thread(target=self._run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._tasks.qsize() > len(self._threads) and len(self._threads) < self.most():
                self._start()
            if not self._work(task[0]):
                return
