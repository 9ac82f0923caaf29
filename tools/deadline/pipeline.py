"""Running the tools: one becomes this process, several run side by side on pipes.

    stage 1 ──stdout──▶ stage 2 ──stdout──▶ stage 3 ──stdout──▶ (ours)
       └──stderr──┐        └──stderr──┐        └──stderr──┐
                  └───────────────────┴───────────────────┴──▶ Narrator ──▶ (ours)

All start at once, so that their start-ups overlap. Each is in our process group: the terminal's Ctrl-C reaches all,
any other signal is passed on.
"""

from __future__ import annotations

import os
import sys

from libdeadline import statuses
from libdeadline.errors import Trouble

TYPE_CHECKING = False  # typing's costs more to import than all else here
if TYPE_CHECKING:
    from subprocess import Popen
    from typing import IO

    from libdeadline.command import Arguments, Run

Stage = list[str]
GRACE_S = 10.0  # for stages to clean up after a signal, before they are killed
SIGPIPE_STATUS = statuses.SIGNAL + 13
NOT_WHOLE = "the stream is not whole"  # how a stage tells that one before it failed


class Shell:
    """What commands run tools with, as the options of the wrapper say: printed, run, or both."""

    def __init__(self, args: Arguments, run: Run) -> None:
        self.show, self.dry, self.run_state = bool(args["-x"]), bool(args["-n"]), run
        self.common = [f"{name}={args[name]}" for name in ("--log-level",) if args[name]]
        self.mode = run.mode
        if args["--progress"]:
            os.environ["DL_PROGRESS"] = self.mode

    def become(self, *words: str) -> int:
        """Become a tool. Returns only if the pipeline is printed and not run."""
        stage = self._with_common(list(words))
        if self._told([stage]):
            return statuses.OK
        sys.stdout.flush()
        command = program(stage[0])
        os.execv(command[0], [*command, *stage[1:]])

    def run(
        self,
        *stages: Stage,
        asks: bool = False,
        draws: bool = True,
        listener: Listener | None = None,
        answering: str = "",
    ) -> int:
        """Run stages, the last of which writes to our standard output, and return the status of the whole.

        `asks`: stages may read a person's answers from descriptor 3, which is our standard input.
        `draws`: progress is shown on a terminal; false where the last stage tells of it.
        `listener` hears of progress and errors as well.
        `answering`: a tool whose answer, such as that something differs, is no failure of the whole.
        """
        listed = [self._with_common(stage) for stage in stages]
        if self._told(listed, asks=asks):
            return statuses.OK
        return Running(self, listed, asks=asks, draws=draws, listener=listener).wait(answering)

    def quiet(self, *stages: Stage) -> int:
        """Run stages whose output is not wanted, and return the status."""
        status, _ = self.read(*stages)
        return status

    def read(self, *stages: Stage, listener: Listener | None = None) -> tuple[int, bytes]:
        """Run stages that only look, and return the status and what the last one wrote."""
        listed = [self._with_common(stage) for stage in stages]
        if self.show:
            _print_error(f"+ {shell_text(listed)}\n")
        running = Running(self, listed, capture=True, listener=listener)
        return running.wait(), bytes(running.captured)

    def _with_common(self, stage: Stage) -> Stage:
        return [stage[0], *self.common, *stage[1:]]

    def _told(self, stages: list[Stage], *, asks: bool = False) -> bool:
        if self.dry:
            print(shell_text(stages, asks=asks))
            return True
        if self.show:
            _print_error(f"+ {shell_text(stages, asks=asks)}\n")
        return False

    def ask(self, question: str) -> bool:
        """A person's yes or no to a question that has no default.

        Raises: Trouble (75) where nobody answers.
        """
        while True:
            answer = self.line(f"{question} [y/n]: ").lower()
            if answer in ("y", "yes"):
                return True
            if answer in ("n", "no"):
                return False

    def line(self, prompt: str) -> str:
        """A line that a person types.

        Raises: Trouble (64) where standard input has ended.
        """
        sys.stdout.write(prompt)
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            sys.stdout.write("\n")
            raise Trouble("nobody answers: give --yes to answer all questions with yes", statuses.USAGE)
        return line.strip()


def program(name: str) -> list[str]:
    """How to start a tool: the launcher beside our own, else the one on PATH, with our interpreter.

    Raises: Trouble (70) where it is nowhere.
    """
    own = sys.argv[0]
    folders = [os.path.dirname(os.path.abspath(own)), os.path.dirname(os.path.realpath(own))]
    folders += os.environ.get("PATH", os.defpath).split(os.pathsep)
    for folder in folders:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            with open(path, "rb") as file:
                first = file.readline(200)
            # Its first line may find another Python, without our packages.
            return [sys.executable, path] if first.startswith(b"#!") and b"python" in first else [path]
    raise Trouble(f"the command '{name}' is not installed beside deadline, nor on PATH", statuses.SOFTWARE)


def shell_text(stages: list[Stage], *, asks: bool = False) -> str:
    """The pipeline as a POSIX shell takes it."""
    import shlex

    text = " | ".join(shlex.join(stage) for stage in stages)
    return f"{{ {text}; }} 3<&0" if asks else text


def _print_error(text: str) -> None:
    os.write(2, text.encode("utf-8", "surrogateescape"))


class Running:
    """Stages at work."""

    def __init__(
        self,
        shell: Shell,
        stages: list[Stage],
        *,
        asks: bool = False,
        capture: bool = False,
        draws: bool = True,
        listener: Listener | None = None,
    ) -> None:
        """Start all stages.

        Raises: Trouble (70) where a tool is missing; nothing runs then.
        """
        import subprocess

        self.names = [stage[0] for stage in stages]
        commands = [[*program(stage[0]), *stage[1:]] for stage in stages]
        self.capture, self.captured = capture, bytearray()
        self.narrator = Narrator(self.names, shell.mode, draws, listener)
        # Text must not run into the line of progress on the same terminal: it goes by way of us.
        self.relays = not capture and self.narrator.draws and os.isatty(1)
        environment = {**os.environ, "DL_PROGRESS": "json"}
        kept: tuple[int, ...] = ()
        if asks:
            saved = os.dup(0)
            if saved != 3:
                os.dup2(saved, 3)
                os.close(saved)
            os.set_inheritable(3, True)
            kept = (3,)
        self.children: list[Popen[bytes]] = []
        upstream: IO[bytes] | None = None
        sys.stdout.flush()
        try:
            for index, command in enumerate(commands):
                last = index == len(commands) - 1
                child = subprocess.Popen(
                    command,
                    stdin=upstream if upstream is not None else (subprocess.DEVNULL if asks else None),
                    stdout=None if last and not capture and not self.relays else subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=environment,
                    pass_fds=kept,
                )
                if upstream is not None:
                    upstream.close()
                upstream = child.stdout
                self.children.append(child)
        except BaseException:
            self._kill()
            raise

    def wait(self, answering: str = "") -> int:
        """Wait for all stages, and return the status of the whole.

        The status is that of the first stage that failed, 128+n if a signal ended it. A stage that SIGPIPE ended
        is no cause: the one that it wrote to was gone before. Nor is one of the tool `answering` that but answered.
        """
        try:
            self._narrate()
            ended = [child.wait() for child in self.children]
        except BaseException as stopped:
            self._end(getattr(stopped, "number", 15))
            raise
        finally:
            self._kill()
            self.narrator.finish()
        found = [statuses.SIGNAL - status if status < 0 else status for status in ended]
        for index, name in enumerate(self.names):
            if name == answering and found[index] < statuses.USAGE:
                found[index] = statuses.OK
        causes = [index for index, status in enumerate(found) if status not in (0, SIGPIPE_STATUS)]
        self.narrator.explain(causes, found)
        if causes:
            return found[causes[0]]
        return found[-1]

    def _kill(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()

    def _narrate(self) -> None:
        import selectors

        with selectors.DefaultSelector() as selector:
            for index, child in enumerate(self.children):
                if child.stderr is not None:
                    selector.register(child.stderr, selectors.EVENT_READ, index)
            if self.capture or self.relays:
                output = self.children[-1].stdout
                assert output is not None
                selector.register(output, selectors.EVENT_READ, -1)
            while selector.get_map():
                for key, _ in selector.select():
                    block = os.read(key.fd, 1 << 16)
                    if not block:
                        selector.unregister(key.fileobj)
                    elif key.data == -1 and self.capture:
                        self.captured += block
                    elif key.data == -1:
                        self._relay(block)
                    else:
                        self.narrator.hear(key.data, block)

    def _relay(self, block: bytes) -> None:
        self.narrator.clear()
        left = memoryview(block)
        while left:
            left = left[os.write(1, left) :]

    def _end(self, number: int) -> None:
        import signal
        import subprocess

        if not (number == signal.SIGINT and _in_foreground()):
            for child in self.children:
                if child.poll() is None:
                    child.send_signal(number)
        for child in self.children:
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()


def _in_foreground() -> bool:
    # Then the terminal sent SIGINT to every stage as well, and a second one would cut their cleaning up short.
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


class Listener:
    """Hears what the stages report."""

    def progress(self, row: dict[str, object]) -> None:
        """A stage's progress record."""

    def keeps(self, row: dict[str, object]) -> bool:
        """Whether it sees to an error or warning itself, so that it is not told."""
        return False

    def error(self, text: str) -> None:
        """The line of an error that ends the work."""


class Narrator:
    """Turns what the stages report into lines for a person, and one line of progress on a terminal.

    With progress as JSON it passes their records on. What follows from the failure of another stage is left out.
    """

    def __init__(self, names: list[str], mode: str, draws: bool, listener: Listener | None) -> None:
        self.names, self.listener = names, listener
        self.json, self.draws = mode == "json", mode == "bar" and draws
        self.tails = [b""] * len(names)
        self.latest: dict[int, str] = {}
        self.held: dict[int, list[str]] = {}
        self.width = 0
        self.shown = 0.0

    def hear(self, index: int, block: bytes) -> None:
        """Take in what stage `index` wrote to its standard error."""
        lines = (self.tails[index] + block).split(b"\n")
        self.tails[index] = lines.pop()
        for line in lines:
            self._line(index, line)

    def _line(self, index: int, line: bytes) -> None:
        import json

        text = line.decode("utf-8", "replace")
        try:
            row = json.loads(line) if line.startswith(b'{"type":"') else {}
        except ValueError:
            row = {}
        if row.get("type") == "progress":
            if self.json:
                self._say(text)
            self.latest[index] = _progress_text(row)
            self._draw()
            if self.listener:
                self.listener.progress(row)
        elif row.get("type") == "error":
            status, message = row.get("status"), str(row.get("message"))
            if self.listener and self.listener.keeps(row):
                return
            told = f"{row.get('tool')}: {'' if status else 'warning: '}{' '.join(message.splitlines())}"
            if message.startswith(NOT_WHOLE):
                self.held.setdefault(index, []).append(text if self.json else told)
                return
            self._say(text if self.json else told)
            if self.listener and status:
                self.listener.error(told)
        else:
            self._say(text)

    def explain(self, causes: list[int], found: list[int]) -> None:
        """Say why the whole failed, where no stage has said so: one that was killed, or a stream cut short."""
        if not causes:
            return
        first = causes[0]
        if found[first] > statuses.SIGNAL and found[first] - statuses.SIGNAL not in (2, 15):
            message = f"{self.names[first]} was ended by signal {found[first] - statuses.SIGNAL}"
            if self.json:
                import json

                error = {"type": "error", "tool": "deadline", "message": message, "status": found[first]}
                self._say(json.dumps(error, separators=(",", ":")))
            else:
                self._say(f"deadline: {message}")
        for text in self.held.get(first, []):
            self._say(text)

    def finish(self) -> None:
        """Leave the terminal clean."""
        for index, tail in enumerate(self.tails):
            if tail:
                self._line(index, tail)
                self.tails[index] = b""
        self.clear()

    def _say(self, text: str) -> None:
        self.clear()
        _print_error(text + "\n")

    def clear(self) -> None:
        """Take the line of progress off the terminal."""
        if self.width:
            _print_error("\r" + " " * self.width + "\r")
            self.width = 0

    def _draw(self) -> None:
        from time import monotonic

        now = monotonic()
        if not self.draws or now - self.shown < 0.05:
            return
        self.shown = now
        try:
            columns = (os.get_terminal_size(2).columns or 80) - 1
        except OSError:
            columns = 79
        text = "  ".join(
            f"{self.names[index].removeprefix('dl-')} {told}" for index, told in sorted(self.latest.items()) if told
        )[:columns]
        _print_error("\r" + text + " " * (self.width - len(text)))
        self.width = len(text)


def _progress_text(row: dict[str, object]) -> str:
    from libdeadline.progress import duration_text, size_text

    def number(name: str) -> float | None:
        value = row.get(name)
        return value if isinstance(value, (int, float)) else None

    parts = [str(row["message"])] if row.get("message") else []
    done, total = number("done_count"), number("total_count")
    if done is not None and (done or total):
        parts.append(f"{done:.0f}/{total:.0f}" if total else f"{done:.0f}")
    done_bytes, total_bytes, rate = number("done_bytes"), number("total_bytes"), number("bytes_per_s")
    if done_bytes is not None and total_bytes:
        parts.append(f"{int(100 * done_bytes / total_bytes)} %")
    if rate:
        parts.append(f"{size_text(rate)}/s")
    skipped = number("skipped_bytes")
    if skipped:
        parts.append(f"{size_text(skipped)} skipped")
    left = number("eta_s")
    if left:
        parts.append(f"{duration_text(left)} left")
    return " ".join(parts)
