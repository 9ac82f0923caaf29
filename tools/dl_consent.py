"""dl-consent - let a submission pass only if its files may leave this machine

Usage:
  dl-consent [options]

Options:
  --yes           Ask nothing; refuse files outside of the known asset paths.
  --answers=<fd>  Descriptor to read a person's answer from, if not the
                  terminal.
  --open-ended    Accept a stream without an end record.

Stands behind dl-bundle. Files under the known asset paths of the bundle record
pass. On a terminal nothing passes until a person agreed to all of it; without
one, only files outside of the known paths wait for an answer. The exit status
is 1 if consent was refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from libdeadline import command
from libdeadline.errors import Trouble
from libdeadline.records import Bundle, File, Foreign, OutputDir, Record, encode

REFUSED = 1
SPOOL_BYTES = 1 << 20  # a stream that waits for an answer is kept in a file beyond this
SHOWN = 8  # paths of a summary


class Paths:
    """What the stream holds so far, and which of it lies outside of the known asset paths.

    Folders are remembered, files only counted: a submission of a million files needs no memory for them.
    """

    def __init__(self) -> None:
        self.known: tuple[str, ...] = ()
        self.files = 0
        self.bytes = 0
        self.unknown_files = 0
        self.inputs: dict[str, int] = {}
        self.unknown: dict[str, int] = {}
        self.outputs: dict[str, bool] = {}
        self._folders: dict[str, bool] = {}

    def read(self, row: Record) -> bool:
        """Take in one record, and tell whether it may pass without a question."""
        if isinstance(row, Bundle):
            named = row.get("known_asset_paths") or [row.path]
            self.known = tuple(os.path.normpath(path) for path in named)
        elif isinstance(row, File):
            folder = os.path.dirname(os.path.join(row.root or "", row.path))
            known = self._is_known(folder)
            self.files += 1
            self.bytes += row.size or 0
            self.inputs[folder] = self.inputs.get(folder, 0) + 1
            if not known:
                self.unknown_files += 1
                self.unknown[folder] = self.unknown.get(folder, 0) + 1
            return known
        elif isinstance(row, OutputDir):
            path = os.path.normpath(os.path.join(row.root, row.path))
            self.outputs[path] = self._is_known(path)
            return self.outputs[path]
        return True

    def _is_known(self, folder: str) -> bool:
        if folder not in self._folders:
            path = os.path.normcase(os.path.normpath(folder))
            self._folders[folder] = any(_is_within(path, os.path.normcase(root)) for root in self.known)
        return self._folders[folder]

    @property
    def unknown_paths(self) -> list[str]:
        """Folders of files and for outputs that are not known, sorted."""
        return sorted({*self.unknown, *(path for path, known in self.outputs.items() if not known)})

    def summary(self) -> str:
        """What a person is asked about."""
        from libdeadline.progress import size_text

        many = "file" if self.files == 1 else "files"
        lines = []
        if self.unknown_paths:
            lines += ["WARNING: files were named that are outside of the known asset paths.", ""]
        lines += [f"The job has {self.files} input {many} of {size_text(self.bytes)} to store for its workers.", ""]
        if self.inputs:
            lines += ["Inputs:", *_shown([f"{path} ({count})" for path, count in sorted(self.inputs.items())])]
        if self.outputs:
            lines += ["Outputs:", *_shown(sorted(self.outputs))]
        if self.unknown_paths:
            lines += ["", "Known asset paths:", *_shown(sorted(self.known)), "Outside of them:"]
            lines += [*_shown(self.unknown_paths), "", "Make folders known with --known-asset-path, with the setting"]
            lines += ["settings.known_asset_paths, or as LOCAL locations of your storage profile."]
        return "\n".join(lines) + "\n"


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(root if root.endswith(os.sep) else root + os.sep)


def _shown(paths: list[str]) -> list[str]:
    more = len(paths) - SHOWN
    return [f"  {path}" for path in paths[:SHOWN]] + ([f"  ... and {more} more"] if more > 0 else [])


class Person:
    """Who is asked: a terminal, or whatever writes answers into a descriptor."""

    def __init__(self, answers: int | None) -> None:
        self.answers = answers
        self.terminal: int | None = None
        if answers is None or os.isatty(answers):
            try:
                self.terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
            except OSError:
                self.terminal = None
        if answers is None:
            self.answers = self.terminal

    def agrees(self, text: str, default: bool) -> bool:
        """A person's answer to `text`; without any, no."""
        if self.answers is None:
            return False
        where = self.terminal if self.terminal is not None else 2
        question = f"Do you want to submit it? [{'Y/n' if default else 'y/N'}]: "
        os.write(where, f"\r\n{text}\n".encode("utf-8", "replace"))
        while True:
            os.write(where, question.encode())
            line = self._line()
            if line is None:
                return False
            word = line.strip().lower()
            if not word:
                return default
            if word in (b"y", b"yes"):
                return True
            if word in (b"n", b"no"):
                return False

    def _line(self) -> bytes | None:
        # Byte by byte: what follows the line belongs to whoever reads the descriptor next.
        assert self.answers is not None
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(self.answers, 1)
            if not byte:
                return line or None
            line += byte
        return line


def gated(rows: Iterator[Record], paths: Paths, person: Person | None) -> Iterator[Record]:
    """Yield `rows`, those that wait for consent once it is given.

    Raises: Trouble (1) where it is not; what was yielded by then lies under the known asset paths.
    """
    from tempfile import SpooledTemporaryFile

    ask_all = person is not None and person.terminal is not None
    refuses = person is None
    with SpooledTemporaryFile(SPOOL_BYTES) as spool:
        holding = False
        for row in rows:
            passes = paths.read(row)
            if isinstance(row, Bundle):
                yield row
                continue
            holding = holding or ask_all or not passes
            if not holding:
                yield row
            elif not refuses:
                spool.write(encode(row))
        if not holding or (ask_all and not paths.files and not paths.outputs):
            yield from _released(spool)
            return
        unknown = paths.unknown_paths
        if person is None or not person.agrees(paths.summary(), not unknown):
            raise _refusal(paths, asked=person is not None and person.answers is not None)
        yield from _released(spool)


def _released(spool: IO[bytes]) -> Iterator[Record]:
    spool.seek(0)
    for line in spool:
        row = Foreign()
        row.line = line
        yield row


def _refusal(paths: Paths, *, asked: bool) -> Trouble:
    unknown = paths.unknown_paths
    if not unknown:
        return Trouble("job submission canceled: nothing was submitted", REFUSED)
    shown = ", ".join(f"'{path}'" for path in unknown[:3]) + (" and others" if len(unknown) > 3 else "")
    told = "job submission canceled: " if asked else ""
    return Trouble(
        f"{told}{paths.unknown_files} of {paths.files} input files, or output folders, are outside of the known asset "
        f"paths: {shown}; make their folders known with --known-asset-path or the setting settings.known_asset_paths",
        REFUSED,
    )


def stage(args: command.Arguments, run: command.Run) -> Iterator[Record]:
    person = None if args["--yes"] else Person(args.integer("--answers", 0))
    rows = run.input(Bundle, File, OutputDir, open_ended=args["--open-ended"])
    yield from gated(rows, Paths(), person)


def main() -> int:
    return command.run(__doc__, stage)
