"""dl-consent - ask a person before a submission goes on

Usage:
  dl-consent [options]

Options:
  --answers=<fd>  Descriptor to read the answer from, if not the terminal.
  --open-ended    Accept a stream without an end record.

Stands behind dl-bundle --unknown-paths=pass: shows what the bundle record tells
of the job's files, and lets nothing else pass until a person has agreed. Where
nobody can be asked, it passes only if no path is outside of the known asset
paths. The exit status is 1 if consent was refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from libdeadline import command
from libdeadline.errors import Trouble
from libdeadline.records import Bundle, Record

REFUSED = 1
SHOWN = 8  # paths of a summary


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

    def agrees(self, text: str, default: bool) -> bool | None:
        """A person's answer to `text`, or None where there is none."""
        if self.answers is None:
            return None
        where = self.terminal if self.terminal is not None else 2
        question = f"Do you want to submit it? [{'Y/n' if default else 'y/N'}]: "
        os.write(where, f"\r\n{text}\n".encode("utf-8", "replace"))
        while True:
            os.write(where, question.encode())
            line = self._line()
            if line is None:
                return None
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


def summary(bundle: Bundle) -> str:
    """What a person is asked about."""
    from libdeadline.progress import size_text

    unknown = bundle.unknown_asset_paths or []
    count = bundle.file_count or 0
    lines = ["WARNING: files were named that are outside of the known asset paths.", ""] if unknown else []
    lines += [
        f"The job '{bundle.name}' has {count} input file{'s' * (count != 1)} of {size_text(bundle.total_bytes or 0)}, "
        "which are stored for its workers."
    ]
    if unknown:
        lines += ["", "Known asset paths:", *_shown(sorted(bundle.known_asset_paths or [])), "Outside of them:"]
        lines += [*_shown(unknown), "", "Make folders known with --known-asset-path, with the setting"]
        lines += ["settings.known_asset_paths, or as LOCAL locations of your storage profile.", ""]
    return "\n".join(lines)


def _shown(paths: list[str]) -> list[str]:
    more = len(paths) - SHOWN
    return [f"  {path}" for path in paths[:SHOWN]] + ([f"  ... and {more} more"] if more > 0 else [])


def demanded(bundle: Bundle, answers: int | None) -> None:
    """Return if the submission may go on.

    Raises: Trouble (1) if not.
    """
    unknown = bundle.unknown_asset_paths or []
    if not bundle.file_count and not unknown:
        return
    answer = Person(answers).agrees(summary(bundle), not unknown)
    if answer is False:
        raise Trouble("job submission canceled: nothing was submitted", REFUSED)
    if answer is None and unknown:
        shown = ", ".join(f"'{path}'" for path in unknown[:3]) + (" and others" if len(unknown) > 3 else "")
        raise Trouble(
            f"files are outside of the known asset paths, and nobody can be asked: {shown}; make their folders known "
            "with --known-asset-path or the setting settings.known_asset_paths",
            REFUSED,
        )


def stage(args: command.Arguments, run: command.Run) -> Iterator[Record]:
    answers = args.integer("--answers", 0)
    for row in run.input(Bundle, open_ended=args["--open-ended"]):
        if isinstance(row, Bundle):
            demanded(row, answers)
        yield row


def main() -> int:
    return command.run(__doc__, stage)
