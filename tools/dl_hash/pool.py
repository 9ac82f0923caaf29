"""Jobs in forked processes, their results in the order in which the jobs were given.

           jobs (marshal, length first)
  parent ══════════════════════════════▶ worker 1..n     each with two pipes of its own
         ◀══════════════════════════════
           results

Processes, because threads that hash small files fight for the interpreter: two of them took longer than one.
"""

from __future__ import annotations

import marshal
import os
import signal
from collections import deque
from collections.abc import Iterator
from select import select
from time import perf_counter
from typing import Any

from libdeadline import statuses
from libdeadline.errors import Trouble

from .content import Done, Hasher, Settings

JOB_S = 0.02  # of work that a job should be
JOB_FILES = 512  # at most in a job
ALONE_S = 0.005  # of work that is done without starting processes
AHEAD = 2  # jobs that a worker has at a time, the one in hand included
READ_BYTES = 1 << 18


class _Worker:
    def __init__(self, pid: int, jobs: int, results: int) -> None:
        self.pid, self.jobs, self.results = pid, jobs, results
        self.outbox = b""
        self.inbox = b""
        self.slots: deque[list[Any]] = deque()


class Pool:
    """Gives jobs to workers, and their results back in order.

    Every method that takes work is a generator of what has become ready meanwhile: Done for a job, or what was
    put between jobs by `put`.
    """

    def __init__(self, settings: Settings, processes: int) -> None:
        self.settings = settings
        self.processes = processes if hasattr(os, "fork") else 1
        self._hasher: Hasher | None = None
        self._alone_s = 0.0
        self._workers: list[_Worker] = []
        self._slots: deque[list[Any]] = deque()  # one item each: a result, or None while it is awaited
        self._file_s: float | None = None  # that a file took lately

    def folder(self, root: str, folder: str, names: list[str]) -> Iterator[Any]:
        """Hash files of one folder."""
        position = 0
        while position < len(names):
            part = names[position : position + self._job_files()]
            position += len(part)
            yield from self._give(("folder", root, folder, part))

    def rows(self, rows: list[dict[str, Any]]) -> Iterator[Any]:
        """Hash the files of file records."""
        position = 0
        while position < len(rows):
            part = rows[position : position + self._job_files()]
            position += len(part)
            yield from self._give(("rows", part))

    def put(self, item: Any) -> Iterator[Any]:
        """Put something into the row of results."""
        self._slots.append([item])
        yield from self.ready()

    def ready(self) -> Iterator[Any]:
        """What is ready, in order."""
        while self._slots and self._slots[0][0] is not None:
            yield self._slots.popleft()[0]

    def finish(self) -> Iterator[Any]:
        """All that is left, in order."""
        while self._slots:
            yield from self.ready()
            if self._slots:
                self._pump()

    def until_readable(self, descriptor: int) -> Iterator[Any]:
        """What becomes ready until `descriptor` can be read or nothing is awaited any more."""
        yield from self.ready()
        while self._slots:
            if self._pump(descriptor):
                return
            yield from self.ready()

    def close(self) -> None:
        """End the workers, whatever they are at."""
        for worker in self._workers:
            os.close(worker.jobs)
            os.close(worker.results)
            try:
                os.kill(worker.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.waitpid(worker.pid, 0)
        self._workers = []

    def _job_files(self) -> int:
        if self._file_s is None:
            return 1
        return max(1, min(JOB_FILES, int(JOB_S / max(self._file_s, 1e-9))))

    def _give(self, job: tuple[Any, ...]) -> Iterator[Any]:
        if self._hasher is None:
            self._hasher = Hasher(self.settings)
        if not self._workers and (self.processes < 2 or (self._alone_s < ALONE_S and self._hasher.is_quick(job))):
            start = perf_counter()
            done = self._hasher.do(job)
            self._alone_s += perf_counter() - start
            if self.processes < 2:
                self._learn(done, len(job[-1]))
            self._slots.append([done])
            yield from self.ready()
            return
        if not self._workers:
            self._start()
        while True:
            worker = min(self._workers, key=lambda each: len(each.slots))
            if len(worker.slots) < AHEAD and len(self._slots) < 8 * self.processes:
                break
            self._pump()
            yield from self.ready()
        slot: list[Any] = [None, len(job[-1])]
        worker.slots.append(slot)
        self._slots.append(slot)
        text = marshal.dumps(job)
        worker.outbox += len(text).to_bytes(4, "big") + text
        self._send(worker)
        yield from self.ready()

    def _learn(self, done: Done, files: int) -> None:
        lately = done.seconds / max(files, 1)
        self._file_s = lately if self._file_s is None else 0.5 * self._file_s + 0.5 * lately

    def _send(self, worker: _Worker) -> None:
        try:
            worker.outbox = worker.outbox[os.write(worker.jobs, worker.outbox) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            raise self._lost(worker) from None

    def _pump(self, also: int | None = None) -> bool:
        """Wait until a worker has sent or can take something, or `also` can be read; say whether it can."""
        reads = [worker.results for worker in self._workers if worker.slots]
        writes = [worker.jobs for worker in self._workers if worker.outbox]
        readable, writable, _ = select([*reads, also] if also is not None else reads, writes, [])
        for worker in self._workers:
            if worker.jobs in writable:
                self._send(worker)
            if worker.results in readable:
                self._receive(worker)
        return also in readable

    def _receive(self, worker: _Worker) -> None:
        data = os.read(worker.results, READ_BYTES)
        if not data:
            raise self._lost(worker)
        worker.inbox += data
        while len(worker.inbox) >= 4:
            end = 4 + int.from_bytes(worker.inbox[:4], "big")
            if len(worker.inbox) < end:
                return
            done = Done(*marshal.loads(worker.inbox[4:end]))
            worker.inbox = worker.inbox[end:]
            slot = worker.slots.popleft()
            slot[0] = done
            self._learn(done, slot.pop())

    def _lost(self, worker: _Worker) -> Trouble:
        return Trouble(f"hashing process {worker.pid} ended before its work was done: run again", statuses.TRY_AGAIN)

    def _start(self) -> None:
        assert self._hasher is not None
        self._hasher.close()  # SQLite must not be carried over a fork
        stops = {signal.SIGINT, signal.SIGTERM}
        parent = os.getpid()
        # A stop must not unwind the parent's code in a child, nor come before a child is known here.
        signal.pthread_sigmask(signal.SIG_BLOCK, stops)
        try:
            for _ in range(self.processes):
                jobs, results = os.pipe(), os.pipe()
                pid = os.fork()
                if pid == 0:
                    try:
                        for worker in self._workers:
                            os.close(worker.jobs)
                            os.close(worker.results)
                        os.close(jobs[1])
                        os.close(results[0])
                        _serve(self.settings, parent, jobs[0], results[1], stops)
                    finally:
                        os._exit(statuses.SOFTWARE)
                self._workers.append(_Worker(pid, jobs[1], results[0]))
                os.close(jobs[0])
                os.close(results[1])
                os.set_blocking(jobs[1], False)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)


def _serve(settings: Settings, parent: int, jobs: int, results: int, stops: set[signal.Signals]) -> None:
    """The life of a worker: jobs in, results out, until the parent closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches the parent too, and it ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)
    # If the parent is killed, its reader must see the end of its output, so no copy of it may live on here.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    hasher = Hasher(settings)
    hasher.parent = parent
    while True:
        head = _read_exactly(jobs, 4)
        if len(head) < 4:
            os._exit(0)
        job = marshal.loads(_read_exactly(jobs, int.from_bytes(head, "big")))
        text = marshal.dumps(tuple(hasher.do(job)))
        data = memoryview(len(text).to_bytes(4, "big") + text)
        while data:
            data = data[os.write(results, data) :]


def _read_exactly(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(descriptor, count - len(data))
        if not more:
            break
        data += more
    return data
