"""What tests and campaigns share: a cache that is vandalised while many processes use it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from xxhash import xxh3_128_hexdigest

COMMANDS = Path(sys.executable).parent
SETTLED_S = 2.05  # after which a file may be remembered


class RightHashes:
    """A tree, a home, and what dl-hash has to say about the tree, whatever is done to the cache in the home."""

    def __init__(self, folder: Path, seed: int, count: int = 300) -> None:
        self.dice = random.Random(seed)
        self.root, self.home = folder / "tree", folder / "home"
        self.home.mkdir()
        self.cache = self.home / ".deadline" / "cache" / "dl_hash.sqlite"
        self.wanted: dict[str, str] = {}
        self.files: list[Path] = []
        for number in range(count):
            content = self.dice.randbytes(self.dice.choice([10, 5000, 9000, 70_000]))
            path = self.root / str(number % 7) / f"{number}.dat"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            self.files.append(path)
            self.wanted[str(path.relative_to(self.root))] = xxh3_128_hexdigest(content)
        self.cacheable = sum(path.stat().st_size >= 4096 for path in self.files)
        self.environment = {**os.environ, "HOME": str(self.home), "PATH": f"{COMMANDS}:{os.environ['PATH']}"}
        self.wrong: list[str] = []
        self.deeds: list[str] = []
        self.ended = self.killed = 0
        newest = max(path.stat().st_ctime for path in self.files)
        time.sleep(max(0.0, newest + SETTLED_S - time.time()))

    def hashes(self, text: str) -> dict[str, str]:
        """Path to hash of a whole stream."""
        rows = [json.loads(line) for line in text.splitlines()]
        assert rows[-1]["ok"] is True
        return {row["path"]: row["hash"] for row in rows if row["type"] == "file"}

    def hash(self, *words: str) -> list[dict[str, object]]:
        """The records of a run that nobody disturbs."""
        done = subprocess.run(
            ["dl-hash", *words, str(self.root)], env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert self.hashes(done.stdout) == self.wanted
        return [json.loads(line) for line in done.stdout.splitlines()]

    def run(self, processes: int, kills: int) -> None:
        """Many runs at a time, some of which are killed in the middle of their output, and the vandal at it."""
        over = threading.Event()
        vandal = threading.Thread(target=self._vandalise, args=(over,))
        victims = set(self.dice.sample(range(processes), kills))
        # One file after another, so that a victim is in the middle when a part of its output has come.
        running = [
            subprocess.Popen(
                ["dl-hash", *(["--rehash"] if number % 5 == 0 else []), str(self.root)],
                env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for number in range(processes)
        ]  # fmt: skip
        vandal.start()
        try:
            for number, process in enumerate(running):
                if number in victims:
                    assert process.stdout is not None
                    for _ in range(self.dice.randrange(0, len(self.wanted) // 2)):
                        process.stdout.readline()
                    process.kill()
                    process.communicate()
                    self.killed += 1
                    continue
                out, err = process.communicate(timeout=300)
                self.ended += 1
                if process.returncode or err:
                    self.wrong.append(f"status {process.returncode}: {err}")
                elif self.hashes(out) != self.wanted:
                    self.wrong.append("a wrong hash")
        finally:
            over.set()
            vandal.join()
            self.cache.parent.chmod(0o700)

    def _vandalise(self, over: threading.Event) -> None:
        deeds: list[Callable[[], None]] = [
            self._delete, self._cut, self._scribble, self._swap, self._read_only, self._leave, self._leave,
        ]  # fmt: skip
        while not over.is_set():
            deed = self.dice.choice(deeds)
            try:
                deed()
                self.deeds.append(deed.__name__)
            except OSError:
                pass  # there is none at the moment
            over.wait(self.dice.uniform(0.005, 0.1))

    def _delete(self) -> None:
        self.cache.unlink()

    def _cut(self) -> None:
        for path in self.cache.parent.iterdir():
            os.truncate(path, self.dice.randrange(0, max(1, path.stat().st_size)))

    def _scribble(self) -> None:
        with open(self.cache, "r+b") as file:
            for _ in range(20):
                file.seek(self.dice.randrange(0, max(1, os.fstat(file.fileno()).st_size)))
                file.write(self.dice.randbytes(3))

    def _swap(self) -> None:
        other = self.cache.with_name("other")
        other.write_bytes(self.dice.choice([b"", b"no database" * 500, b"SQLite format 3\0" + b"\xff" * 9000]))
        other.replace(self.cache)

    def _read_only(self) -> None:
        self.cache.chmod(0o400)
        self.cache.parent.chmod(0o500)
        time.sleep(0.01)
        self.cache.parent.chmod(0o700)
        self.cache.chmod(0o600)

    def _leave(self) -> None:
        time.sleep(self.dice.uniform(0.05, 0.3))  # a cache that is never let be would never be used
