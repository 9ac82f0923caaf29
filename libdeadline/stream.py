"""Reading and writing streams of records: complete or refused, prompt and in blocks.

A record leaves at once when the tool would otherwise wait for input, else with others in a block, so that
one huge frame doesn't sit in a buffer and a hundred thousand textures are not written singly.
Source: design, the record stream.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from select import select
from threading import Condition, Lock, Thread
from time import monotonic

from . import statuses
from .errors import Trouble
from .records import End, Foreign, Record, decode, encode

BLOCK_BYTES = 1 << 16
LINGER_S = 0.1  # longest that a record waits for others to share a write with
READ_BYTES = 1 << 18
PREFIX = b'{"type":"'


class Output:
    """Writes records to a descriptor in blocks, from any thread.

    Raises: OSError from the write that failed, in the thread that flushes; a failed flush is a failure.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.records = 0
        # Copied together at once: lines that were kept would each hold on to the room that they were encoded in.
        self._block = bytearray()
        self._since = 0.0
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._lingerer: Thread | None = None
        self._error: OSError | None = None
        self._closed = False

    def write(self, row: Record) -> None:
        line = row.line if type(row) is Foreign else encode(row)
        with self._lock:
            if self._error:
                raise self._error
            block = self._block
            was_empty = not block
            block += line
            self.records += line.count(b"\n")  # a Foreign may hold a block of lines
            if len(block) >= BLOCK_BYTES:
                self._flush()
            elif was_empty:
                self._since = monotonic()
                if self._lingerer is None:
                    self._lingerer = Thread(target=self._linger, daemon=True)
                    self._lingerer.start()
                else:
                    self._changed.notify()

    def flush(self) -> None:
        with self._lock:
            if self._error:
                raise self._error
            self._flush()

    def close(self) -> None:
        """Flush, and stop the thread that flushes records that waited too long."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            if self._error:
                raise self._error
            self._flush()

    def _flush(self) -> None:
        if not self._block:
            return
        block, self._block = self._block, bytearray()
        with memoryview(block) as data:
            sent = os.write(self.descriptor, data)
            while sent < len(data):
                sent += os.write(self.descriptor, data[sent:])

    def _linger(self) -> None:
        with self._changed:
            while not self._closed:
                if not self._block:
                    self._changed.wait()
                    continue
                left = self._since + LINGER_S - monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                try:
                    self._flush()
                except OSError as error:
                    self._error = error
                    return


class Input:
    """The records of a stream, in order; iteration ends only where the stream is whole.

    Shape:   records of the `kinds` asked for come as their classes, all others as Foreign, to be passed on;
             without kinds every record is decoded. `end` records are consumed. A Foreign has its line, and
             its fields only where they had to be read to learn its kind.
    Raises:  Trouble (65) where the stream stops without an `end`, or its `end` says not ok, unless
             `open_ended`; so code after the loop runs only on a complete stream.
    """

    def __init__(
        self,
        descriptor: int,
        kinds: tuple[type[Record], ...] = (),
        *,
        open_ended: bool = False,
        before_wait: Callable[[], None] | None = None,
    ) -> None:
        self.descriptor = descriptor
        self.open_ended = open_ended
        self._kinds = kinds
        self._before_wait = before_wait
        self._whole = False
        self._read_any = False
        self._failed: str | None = None
        self.end: End | None = None  # the last one read, with what its tool counted

    def __iter__(self) -> Iterator[Record]:
        wanted = {kind.kind.encode() for kind in self._kinds} | {b"end"} if self._kinds else None
        for line in self._lines():
            # Our own tools write "type" first; any other line is parsed to learn its kind.
            if wanted and line.startswith(PREFIX):
                if line[len(PREFIX) : line.find(b'"', len(PREFIX))] not in wanted and line.endswith(b"}\n"):
                    self._whole = False
                    foreign = Foreign()
                    foreign.line = line
                    yield foreign
                    continue
                row = decode(line)
            else:
                row = decode(line)
                if self._kinds and not isinstance(row, (*self._kinds, End)):
                    foreign = Foreign(row)
                    foreign.line = line if line.endswith(b"\n") else line + b"\n"
                    row = foreign
            if isinstance(row, End):
                self._whole, self.end = True, row
                if not row.ok:
                    self._failed = row.tool
            else:
                self._whole = False
                yield row
        if self.open_ended:
            return
        if self._failed:
            raise Trouble(f"the stream is not whole: '{self._failed}' reported a failure", statuses.DATA)
        if not self._whole:
            what = "it stopped without an end record" if self._read_any else "there was no input"
            raise Trouble(f"the stream is not whole: {what}", statuses.DATA)

    def _lines(self) -> Iterator[bytes]:
        tail = b""
        while True:
            if self._before_wait and not select([self.descriptor], [], [], 0)[0]:
                self._before_wait()
            block = os.read(self.descriptor, READ_BYTES)
            if not block:
                break
            self._read_any = True
            if b"\n" not in block:
                # A line longer than a block (a template) must not be copied once for each block.
                parts = [tail, block]
                while block and b"\n" not in block:
                    block = os.read(self.descriptor, READ_BYTES)
                    parts.append(block)
                tail = b""
                block = b"".join(parts)
            else:
                block = tail + block
            lines = block.split(b"\n")
            tail = lines.pop()
            for line in lines:
                if line:
                    yield line + b"\n"
        if tail:
            # A last line without its newline was cut off, unless it happens to be whole JSON.
            yield tail
