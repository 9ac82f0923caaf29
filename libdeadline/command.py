"""The frame of every command: arguments, streams, progress, signals, and errors turned into a line and a status.

`run` is for tools that write a stream of records, `call` for all others (daemons, settings, wrappers).
Source: design, the process contract; sysexits(3).
"""

from __future__ import annotations

import os
import sys

from . import __version__, statuses
from .errors import Trouble, os_trouble

# `typing` and `collections` would cost a command that needs nothing else a third of its start-up.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType
    from typing import Any

    from .progress import Meter
    from .records import Record
    from .stream import Output

    Stage = Callable[["Arguments", "Run"], Iterator[Record]]
    Values = dict[str, Any]
else:
    Values = dict

COMMON_OPTIONS = """
Common options:
  --progress=<mode>    Progress and errors on standard error: bar, json, none or
                       auto (a bar on a terminal) [default: auto].
  --log-level=<level>  error, warning, info or debug; debug shows tracebacks
                       [default: warning].
  --version            Show the version and exit.
  -h, --help           Show this text and exit.
"""
LEVELS = ("error", "warning", "info", "debug")
UNSHOWN = {  # characters that lines for people have escaped
    code: repr(chr(code))[1:-1]
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
UNSHOWN.update({0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)})  # bytes that are no UTF-8


class Stopped(BaseException):
    """A signal asked the tool to stop: it unwinds as KeyboardInterrupt does, through every `finally`."""

    def __init__(self, number: int) -> None:
        self.number = number


class Arguments(Values):
    """What docopt parsed: option and argument names to values, with checked conversions.

    Raises: Trouble (64) where a value is not what the option takes.
    """

    def integer(self, name: str, minimum: int | None = None, maximum: int | None = None) -> int | None:
        """The whole number given for `name`, or None."""
        value = self[name]
        if value is None:
            return None
        try:
            number = int(value)
        except ValueError:
            raise Trouble(f"{name} takes a whole number, not '{value}'", statuses.USAGE) from None
        if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
            limits = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
            raise Trouble(f"{name} takes {limits}, not {number}", statuses.USAGE)
        return number

    def seconds(self, name: str) -> float | None:
        """The duration given for `name` in seconds (30, 1.5, 10m, 2h, 1d), or None."""
        value = self[name]
        if value is None:
            return None
        units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
        text, unit = (value[:-1], units[value[-1]]) if value[-1:] in units else (value, 1)
        try:
            number = float(text) * unit
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise Trouble(f"{name} takes a duration such as 30, 1.5, 10m or 2h, not '{value}'", statuses.USAGE)
        return number

    def bytes(self, name: str) -> int | None:
        """The size given for `name` in bytes (4096, 64K, 8M, 1G; powers of 1024), or None."""
        value = self[name]
        if value is None:
            return None
        units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
        text, unit = (value[:-1], units[value[-1].upper()]) if value[-1:].upper() in units else (value, 1)
        try:
            number = int(float(text) * unit)
        except (ValueError, OverflowError):
            number = -1
        if number < 0:
            raise Trouble(f"{name} takes a size such as 65536, 64K or 8M, not '{value}'", statuses.USAGE)
        return number

    def choice(self, name: str, choices: Iterable[str]) -> str | None:
        """The one of `choices` that was given for `name`, in any case, or None."""
        value = self[name]
        if value is None:
            return None
        for choice in choices:
            if choice.lower() == value.lower():
                return choice
        raise Trouble(f"{name} takes one of {', '.join(choices)}, not '{value}'", statuses.USAGE)


class Run:
    """One run of a command: its input, its progress, its warnings and what it counts."""

    def __init__(self, tool: str, level: str, mode: str) -> None:
        self.tool, self.level, self.mode = tool, level, mode
        self.counts: dict[str, int] = {}
        self.status = statuses.OK
        self.output: Output | None = None
        self.text = False  # a stage at a pipeline's end sets this: it prints text, and no end record follows
        self._meter: Meter | None = None

    def input(
        self, *kinds: type[Record], open_ended: bool = False, before_wait: Callable[[], None] | None = None
    ) -> Iterator[Record]:
        """The records on standard input: see `libdeadline.stream.Input`, whose iteration ends only where whole.

        `before_wait` is called where the next record has to be waited for; by default it flushes the output.
        Raises: Trouble (64) where standard input is a terminal.
        """
        from .stream import Input

        if os.isatty(0):
            raise Trouble("nothing to read: pipe records in, or name what to work on (see --help)", statuses.USAGE)
        flush = self.output.flush if self.output else None
        return iter(Input(0, kinds, open_ended=open_ended, before_wait=before_wait or flush))

    def print(self, text: str) -> None:
        """Write text to standard output at once, in place of records (see `text`)."""
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        if self._meter:
            self._meter.clear()
        while data:
            data = data[os.write(1, data) :]

    @property
    def progress(self) -> Meter:
        """The meter of this run."""
        if self._meter is None:
            from .progress import Meter

            self._meter = Meter(self.tool, self.mode)
        return self._meter

    def count(self, **amounts: int) -> None:
        """Add to the counts that the end record carries."""
        for name, amount in amounts.items():
            self.counts[name] = self.counts.get(name, 0) + amount

    def warn(self, message: str, *, path: str | None = None) -> None:
        """Tell of something that the run goes on without."""
        if LEVELS.index(self.level) >= LEVELS.index("warning"):
            self._tell(message, "warning: ", path=path)

    def info(self, message: str) -> None:
        """Tell a person something at --log-level info."""
        if LEVELS.index(self.level) >= LEVELS.index("info"):
            self._tell(message, "")

    def debug(self, message: str) -> None:
        """Tell a developer something at --log-level debug."""
        if self.level == "debug":
            self._tell(message, "debug: ")

    def fail(self, trouble: Trouble) -> None:
        """Report a failure that the run goes on after; the stream will end not ok, with the first one's status."""
        self._tell(trouble.message, "", status=trouble.status, path=trouble.path, code=trouble.code)
        self.status = self.status or trouble.status

    def _tell(self, message: str, label: str, **fields: Any) -> None:
        if self._meter:
            self._meter.clear()
        if self.mode == "json":
            from .records import Error, encode

            line = encode(Error.of(tool=self.tool, message=message, **fields))
        else:
            # A name may hold what a terminal would take for a command, or would write from right to left.
            one_line = " ".join(message.split("\n")).translate(UNSHOWN)
            line = f"{self.tool}: {label}{one_line}\n".encode("utf-8", "backslashreplace")
        try:
            os.write(2, line)
        except OSError:
            pass  # nobody reads it; the status still tells


def run(doc: str, stage: Stage, argv: list[str] | None = None) -> int:
    """Run a tool that writes a stream: each record that `stage` yields, then the `end` record.

    `stage` is a generator; what it returns, if anything, is the exit status (an answer such as dl-diff's 1).
    Returns the exit status. The stream ends ok only if `stage` finished and reported no failure.
    """

    def work(args: Arguments, state: Run) -> int:
        from .stream import Output

        state.output = output = Output(1)
        rows = stage(args, state)
        answer = 0
        try:
            while True:
                try:
                    row = next(rows)
                except StopIteration as stop:
                    answer = stop.value or 0
                    break
                output.write(row)
        except BaseException as error:
            if not (isinstance(error, OSError) and _is_output_gone(error)):
                _end(state, _status_of(error))
            raise
        finally:
            rows.close()  # type: ignore[attr-defined]
        _end(state, state.status)
        return state.status or answer

    return call(doc, work, argv)


def call(
    doc: str,
    main: Callable[[Arguments, Run], int],
    argv: list[str] | None = None,
    *,
    parser: Callable[[str, list[str]], Arguments] | None = None,
) -> int:
    """Run a command that writes no stream of records, in the same frame. Returns the exit status.

    `parser` takes the place of `parse`, for a command whose words are not one usage text.
    """
    words = sys.argv[1:] if argv is None else argv
    tool = doc.split(None, 1)[0]
    if words == ["--version"]:
        return _print(f"{tool}, version {__version__}\n")
    state = Run(tool, "warning", "none")
    _handle_signals()
    try:
        args = (parser or parse)(doc, words)
        if args.get("--help"):
            return _print(usage(doc))
        if args.get("--version"):
            return _print(f"{tool}, version {__version__}\n")
        state.level = args.choice("--log-level", LEVELS) or "warning"
        state.mode = _progress_mode(args)
        schema = os.environ.get("DL_SCHEMA") or "1"
        if schema != "1":
            raise Trouble(f"DL_SCHEMA asks for record schema '{schema}'; this version writes 1", statuses.USAGE)
        status = main(args, state)
        if state._meter:
            state._meter.finish()
        _flush_stdout()
        return status
    except (Exception, Stopped, KeyboardInterrupt) as error:
        return _report(error, state)


def usage(doc: str) -> str:
    """The whole usage text of a command: its own, and the options that all commands have."""
    return doc.rstrip("\n") + "\n" + COMMON_OPTIONS


def parse(doc: str, words: list[str]) -> Arguments:
    """Parse `words` by the usage text.

    Does otherwise than docopt-ng: no abbreviated options, status 64, and -h or --version win over the rest.
    Raises: Trouble (64).
    """
    import re

    from docopt import DocoptExit, docopt, parse_docstring_sections, parse_options

    text = usage(doc)
    own = words[: words.index("--")] if "--" in words else words
    if "-h" in own or "--help" in own:
        return Arguments({"--help": True})
    if "--version" in own:
        return Arguments({"--version": True})
    sections = parse_docstring_sections(text)
    options = parse_options(sections.before_usage + sections.after_usage)
    known = {option.longer for option in options}
    known.update(re.findall(r"(?<![\w-])--[\w-]+", sections.usage_body))
    for word in own:
        name = word.partition("=")[0]
        if name.startswith("--") and name not in known:
            raise Trouble(f"unknown option '{name}' (see --help)", statuses.USAGE)
    # docopt takes a short option that is a digit (-0) for a negative number, and so for an argument.
    digits = {option.short: option.longer for option in options if option.short and option.short[1:].isdigit()}
    words = [digits.get(word) or word for word in own] + words[len(own) :]
    try:
        args = Arguments(docopt(text, words, default_help=False))
    except DocoptExit as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        first = lines[0].strip() if lines else ""
        if not first or "usage:" in first.lower() or first.startswith("Warning: found unmatched"):
            shape = " | ".join(line.strip() for line in sections.usage_body.splitlines() if line.strip())
            first = f"wrong arguments; usage: {shape.split(' | ')[0]}" if shape else "wrong arguments"
        raise Trouble(f"{first} (see --help)", statuses.USAGE) from None
    if "--" in words and args.get("--") is False:
        # docopt takes -- for one more name where names stand before it.
        for value in args.values():
            if isinstance(value, list) and "--" in value:
                value.remove("--")
    return args


def _progress_mode(args: Arguments) -> str:
    mode = args.choice("--progress", ("auto", "bar", "json", "none")) or "auto"
    if mode == "auto":
        if os.environ.get("DL_PROGRESS") in ("bar", "json", "none"):
            return os.environ["DL_PROGRESS"]
        # Of a pipeline on one terminal only the last stage draws, or the bars would overwrite each other.
        return "bar" if os.isatty(2) and not _is_pipe(1) else "none"
    return mode


def _is_pipe(descriptor: int) -> bool:
    from stat import S_ISFIFO

    try:
        return S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _end(state: Run, status: int) -> None:
    from .records import End

    output = state.output
    assert output is not None
    if state.text:
        return
    fields: dict[str, Any] = {"records": output.records, **state.counts}
    if status:
        fields["status"] = status
    output.write(End.of(tool=state.tool, ok=status == 0, **fields))
    output.close()


def _handle_signals() -> None:
    import signal

    def stop(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, at_once)
        raise Stopped(number)

    def at_once(number: int, frame: FrameType | None) -> None:
        os._exit(statuses.SIGNAL + number)

    try:
        for each in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, stop)
    except ValueError:
        pass  # not in the main thread: someone embeds the command


def _is_output_gone(error: OSError) -> bool:
    return isinstance(error, BrokenPipeError) and error.filename is None


def _status_of(error: BaseException) -> int:
    if isinstance(error, Trouble):
        return error.status
    if isinstance(error, Stopped):
        return statuses.SIGNAL + error.number
    if isinstance(error, KeyboardInterrupt):
        return statuses.SIGNAL + 2
    if isinstance(error, OSError):
        return os_trouble(error, "read").status
    return statuses.SOFTWARE


def _report(error: BaseException, state: Run) -> int:
    status = _status_of(error)
    if state.level == "debug":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, OSError) and _is_output_gone(error):
        _silence_stdout()
        return statuses.SIGNAL + 13
    if isinstance(error, Trouble):
        state.fail(error)
    elif isinstance(error, Stopped):
        state._tell(f"stopped by signal {error.number}", "", status=status)
    elif isinstance(error, KeyboardInterrupt):
        state._tell("stopped by signal 2", "", status=status)
    elif isinstance(error, OSError):
        state.fail(os_trouble(error, "use" if error.filename is not None else "write the output"))
    else:
        state._tell(
            f"internal error: {type(error).__name__}: {error}; please report it with the output of --log-level debug",
            "",
            status=status,
        )
    try:
        _flush_stdout()
    except OSError:
        _silence_stdout()
    return status


def _print(text: str) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
        return statuses.SIGNAL + 13
    except OSError as error:
        _silence_stdout()
        os.write(2, f"cannot write the output: {error.strerror}\n".encode())
        return statuses.IO
    return statuses.OK


def _flush_stdout() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _silence_stdout() -> None:
    # The interpreter flushes stdout once more at exit; let that go nowhere instead of to a closed pipe.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
