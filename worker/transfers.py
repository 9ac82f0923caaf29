"""Input and output of a session by the tools that a person uses, as child processes.

inputs        dl-download ──▶ file records
dependencies  dl-download ──▶ file records
outputs       (records) ──▶ dl-hash | dl-manifest | dl-upload ──▶ manifest records
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock, Thread
from time import monotonic
from typing import Any

from libdeadline import statuses
from libdeadline.errors import Trouble
from libdeadline.records import Error, Progress, Record, decode, encode
from libdeadline.stream import Input

STOP_S = 5.0  # what a stage gets to clean up (abort uploads, remove temporaries) before it is killed


class Cancelled(Exception):
    """The transfer was told to stop before it was through."""


class Pipeline:
    """Commands joined by pipes, in a process group of their own; records go in at one end and come out at the other."""

    def __init__(self, commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> None:
        self.commands = commands
        self.environment = {**environment, "DL_PROGRESS": "json"}
        self.errors: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._cancelled = False

    def run(
        self,
        rows: Iterable[Record] | None,
        kinds: tuple[type[Record], ...],
        take: Callable[[Record], None],
        tell: Callable[[Progress | Error], None],
    ) -> None:
        """Run to the end: `take` gets each record of `kinds` that comes out, `tell` each report on standard error.

        Raises: Trouble with the first failure that a stage reported; Cancelled.
        """
        errors_out, errors_in = os.pipe()
        try:
            self._start(rows is not None, errors_in)
        finally:
            os.close(errors_in)
        listener = Thread(target=self._listen, args=(errors_out, tell), daemon=True)
        listener.start()
        feeder = Thread(target=self._feed, args=(rows,), daemon=True) if rows is not None else None
        if feeder:
            feeder.start()
        whole: Trouble | None = None
        last = self._processes[-1].stdout
        assert last is not None
        with last:
            try:
                for row in Input(last.fileno(), kinds):
                    if isinstance(row, kinds):
                        take(row)
            except Trouble as error:
                whole = error
        codes = [process.wait() for process in self._processes]
        if feeder:
            feeder.join()
        listener.join()
        if self._cancelled:
            raise Cancelled
        if whole or any(codes):
            raise self._trouble(codes, whole)

    def cancel(self) -> None:
        """Ask the stages to stop, from any thread; the later ones fail by the stream that then isn't whole."""
        self._cancelled = True
        self._signal(signal.SIGTERM)
        Thread(target=self._kill_late, daemon=True).start()

    def _start(self, is_fed: bool, errors_in: int) -> None:
        upstream: Any = subprocess.PIPE if is_fed else subprocess.DEVNULL
        group = 0
        for command in self.commands:
            try:
                process = subprocess.Popen(
                    command, stdin=upstream, stdout=subprocess.PIPE, stderr=errors_in,
                    env=self.environment, process_group=group,
                )  # fmt: skip
            except OSError as error:
                self._signal(signal.SIGKILL)
                raise Trouble(f"cannot start '{command[0]}': {error.strerror}", statuses.UNAVAILABLE) from None
            if self._processes:
                upstream.close()  # the next stage has it; ours would keep it from seeing a closed pipe
            self._processes.append(process)
            upstream = process.stdout
            group = group or process.pid
        if self._cancelled:
            self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self._processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._processes[0].pid, number)

    def _kill_late(self) -> None:
        until = monotonic() + STOP_S
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - monotonic()))
        if any(process.poll() is None for process in self._processes):
            self._signal(signal.SIGKILL)

    def _feed(self, rows: Iterable[Record]) -> None:
        from libdeadline.records import End

        pipe = self._processes[0].stdin
        assert pipe is not None
        ok = False
        with contextlib.suppress(BrokenPipeError), pipe:  # a stage that ended early tells why by itself
            try:
                for row in rows:
                    pipe.write(encode(row))
                ok = True
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
                self.errors.append(f"cannot read '{error.filename}': {error.strerror}")
            pipe.write(encode(End.of(tool="dl-session", ok=ok)))

    def _listen(self, descriptor: int, tell: Callable[[Progress | Error], None]) -> None:
        with os.fdopen(descriptor, "rb") as stream:
            for line in stream:
                try:
                    row = decode(line)
                except Trouble:
                    row = Error.of(tool="", message=line.decode("utf-8", "replace").rstrip())
                if isinstance(row, Error) and (row.status or not row.tool):
                    self.errors.append(row.message)
                if isinstance(row, Progress | Error):
                    tell(row)

    def _trouble(self, codes: list[int], whole: Trouble | None) -> Trouble:
        # What a later stage says of a stream that stopped is true, but not the reason.
        reasons = [text for text in self.errors if "the stream is not whole" not in text]
        names = " | ".join(os.path.basename(command[0]) for command in self.commands)
        for command, code in zip(self.commands, codes, strict=True):
            if code and not reasons:
                how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
                reasons.append(f"{os.path.basename(command[0])} {how}")
        if whole and not reasons:
            reasons.append(whole.message)
        status = next((code for code in codes if code > 0), statuses.IO)
        return Trouble(f"{names}: {reasons[0]}", status)


class Transfer:
    """The pipelines of one action, one after the other, and the wish to stop them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pipeline: Pipeline | None = None
        self._cancelled = False

    def run(self, pipeline: Pipeline, *arguments: Any) -> None:
        """`pipeline.run(*arguments)`, unless the transfer was cancelled before.

        Raises: as Pipeline.run.
        """
        with self._lock:
            if self._cancelled:
                raise Cancelled
            self._pipeline = pipeline
        pipeline.run(*arguments)
        with self._lock:
            self._pipeline = None
            if self._cancelled:
                raise Cancelled

    def cancel(self) -> None:
        """Stop what runs, and start no more; from any thread."""
        with self._lock:
            self._cancelled = True
            if self._pipeline is not None:
                self._pipeline.cancel()


def tool(name: str) -> str:
    """Our command `name`: beside the running one, so that all are of one version, else as PATH has it."""
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), name)
    return beside if os.access(beside, os.X_OK) else name


def write_rules(path: str, rules: Iterable[Mapping[str, str]]) -> str:
    """Write path mapping rules as a file that the tools read; its path.

    Source: spec attachments 8.8.
    """
    from .folder import write_json

    items = [
        {
            "source_path_format": rule["sourcePathFormat"],
            "source_path": rule["sourcePath"],
            "destination_path": rule["destinationPath"],
        }
        for rule in rules
    ]
    write_json(path, {"path_mapping_rules": items})
    return path
