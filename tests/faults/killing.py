"""Kills of uploads, downloads and syncs in the middle of their work, and what must hold after the next run.

Commands reach the store and the service of a farm through gates, which tell when the moment has come: so many bytes,
requests or answers into the work, drawn by lot from what the same work takes when nobody disturbs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from gate import Gate
from xxhash import xxh3_128_hexdigest

from libdeadline.aws import Credentials
from libdeadline.s3 import S3, Found

sys.path.insert(0, str(Path(__file__).parents[1] / "farm"))
from renders import BUCKET, Renders

PART_BYTES = 8 << 20  # to a store on this machine
LARGE_BYTES = 32 << 20  # from here on files are sent in parts, and taken up where a killed run left them
HEADS_BYTES = 4096  # of an answer, at most
END_S = 90
KINDS = ("upload", "pipeline", "download", "sync", "follow")


class Violation(AssertionError):
    """What must not be."""


class Moment(NamedTuple):
    """When to strike: at the `count`th of `what` (requests, answers, up, down: bytes; or lines of a stream)."""

    what: str
    count: int


class Outcome(NamedTuple):
    """What a trial did and found. Units: bytes."""

    kind: str
    moments: list[Moment]
    again_bytes: int  # that went over the wire a second time, for the file of which it was most
    again_parts: int  # that the store had and were sent again, likewise
    seconds: float


class Trials:
    """Trials of every kind on one farm. `dice` decides everything that is left open."""

    def __init__(self, farm: Any, folder: Path, dice: random.Random, large: int = 2) -> None:
        self.farm, self.folder, self.dice = farm, folder, dice
        self.s3, _ = store_of(farm)
        self._seen: set[Found] = set()  # objects that were looked at
        self.store = Gate(farm.environment["AWS_ENDPOINT_URL_S3"])
        self.service = Gate(farm.environment["AWS_ENDPOINT_URL_DEADLINE"])
        self.count = 0
        self.root = folder / "tree"
        self.files = self._tree(large)
        self.usual: dict[str, dict[str, int]] = {}  # kind: what the work takes undisturbed
        self._fetched: tuple[str, Path] | None = None

    def close(self) -> None:
        self.store.close()
        self.service.close()

    def trial(self, kind: str, kills: int, number: int = signal.SIGKILL) -> Outcome:
        """Kill work of a kind so often, let it come to its end, and look at what is left. Raises: Violation."""
        began = time.monotonic()
        self.count += 1
        self.home = self.folder / f"home{self.count}"
        (self.home / "tmp").mkdir(parents=True)
        try:
            again_bytes, again_parts, moments = getattr(self, f"_{kind}")(kills, number)
            self._check_home()
        finally:
            shutil.rmtree(self.home)
        if number == signal.SIGKILL and (again_bytes > PART_BYTES * kills or again_parts > kills):
            raise Violation(f"{kind}: {again_bytes} bytes, {again_parts} whole parts of a file were sent again")
        return Outcome(kind, moments, again_bytes, again_parts, time.monotonic() - began)

    # What is sent and fetched.

    def _tree(self, large: int) -> dict[str, bytes]:
        found = {}
        for number in range(120):
            size = self.dice.choice([1, 900, 20_000, 140_000, 400_000][: 5 if number % 4 == 0 else 2])
            found[f"d{number % 4}/{number}"] = self.dice.randbytes(size)
        found["d0/twin"] = found["d1/1"]
        for number in range(large):
            found[f"large{number}"] = self.dice.randbytes(LARGE_BYTES + 1 + self.dice.randrange(20 << 20))
        for name, content in found.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(content)
        return found

    def _environment(self) -> dict[str, str]:
        return {
            **self.farm.environment,
            "HOME": str(self.home),
            "TMPDIR": str(self.home / "tmp"),
            "PYTHONFAULTHANDLER": "1",
            "AWS_ENDPOINT_URL_S3": self.store.url,
            "AWS_ENDPOINT_URL_DEADLINE": self.service.url,
        }

    def _start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        fields = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, **options}
        return subprocess.Popen(words, env=self._environment(), **fields)

    def _finished(self, process: subprocess.Popen[bytes], text: bytes | None = None) -> tuple[int, bytes, bytes]:
        try:
            out, err = process.communicate(text, timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Violation("it hangs") from None
        return process.returncode, out, err

    def _whole(self, *words: str, text: bytes | None = None) -> list[dict[str, Any]]:
        """Run to the end, which must be good: the records."""
        process = self._start(*words, **({"stdin": subprocess.PIPE} if text is not None else {}))
        status, out, err = self._finished(process, text)
        if status or err:
            raise Violation(f"{words[0]} ended with {status}: {err.decode()}")
        return [json.loads(line) for line in out.splitlines()]

    def _draw(self, kind: str, *what: str) -> Moment:
        chosen = self.dice.choice(what)
        return Moment(chosen, self.dice.randrange(1, max(2, self.usual[kind][chosen] * 4 // 5)))

    def _struck(
        self, moment: Moment, start: Callable[[], subprocess.Popen[bytes]], number: int, text: bytes | None = None
    ) -> bool:
        """Start a command and strike it at a moment; False where it was done before."""
        gate = self.service if moment.what.startswith("service ") else self.store
        running: list[subprocess.Popen[bytes]] = []
        ready = threading.Event()

        def strike() -> None:
            ready.wait()
            running[0].send_signal(number)
            if number == signal.SIGKILL:
                while running[0].poll() is None:
                    time.sleep(0.001)

        gate.arm(moment.what.removeprefix("service "), moment.count, strike)
        running.append(start())
        ready.set()
        status, out, err = self._finished(running[0], text)
        gate.disarm()
        if b"Traceback" in err:
            raise Violation(f"a traceback: {err.decode()}")
        if number == signal.SIGKILL:
            if status not in (-number, 0):
                raise Violation(f"status {status}: {err.decode()}")
            return status == -number
        if status == 0:
            return False
        if status != 128 + number or not out.endswith(b"}\n") or json.loads(out.splitlines()[-1])["ok"] is not False:
            raise Violation(f"status {status} after signal {number}: {out[-300:].decode()}{err.decode()}")
        return True

    def _learn(self, kind: str, gates: Iterable[tuple[str, Gate]] = ()) -> None:
        found = {}
        for name, gate in (("", self.store), *gates):
            found.update({f"{name}{what}": count for what, count in gate.passed.items()})
        self.usual[kind] = found

    # Uploads.

    def _uploading(self, prefix: str) -> tuple[str, ...]:
        return ("dl-upload", f"--s3-root-uri=s3://{BUCKET}/{prefix}", "--manifest-prefix=m", "--limit-rate=400M")

    def _upload(self, kills: int, number: int) -> tuple[int, int, list[Moment]]:
        prefix = f"kills/{self.count}"
        stream = b"".join(json.dumps(row).encode() + b"\n" for row in self._whole("dl-hash", str(self.root)))
        words = self._uploading(prefix)
        self._calibrate("upload", lambda: self._whole(*self._uploading("kills/usual"), text=stream))
        moments = []
        for _ in range(kills):
            moment = self._draw("upload", "up", "up", "requests", "answers")
            piped = {"stdin": subprocess.PIPE}
            if self._struck(moment, lambda: self._start(*words, **piped), number, stream):  # noqa: B023
                moments.append(moment)
                self._check_bucket(prefix, whole=False)
                if number != signal.SIGKILL:
                    self._check_stopped(prefix)
        self._whole(*words, text=stream)
        self._check_bucket(prefix, whole=True)
        return *self._sent_again(prefix), moments

    def _pipeline(self, kills: int, number: int) -> tuple[int, int, list[Moment]]:
        prefix = f"kills/{self.count}"
        self._calibrate("pipeline", lambda: self._piped("kills/usual", None, None, number))
        lines = len(self.files) + 3
        moments = []
        for _ in range(kills):
            victim = self.dice.choice(("dl-hash", "dl-manifest", "dl-upload", "all"))
            if victim in ("dl-hash", "dl-manifest"):
                moment = Moment("lines", self.dice.randrange(1, lines))
            else:
                moment = self._draw("pipeline", "up", "up", "requests", "answers")
            if self._piped(prefix, victim, moment, number):
                moments.append(Moment(f"{victim} {moment.what}", moment.count))
                self._check_bucket(prefix, whole=False)
        if self._piped(prefix, None, None, number):
            raise Violation("a run that nobody struck did not come to its end")
        self._check_bucket(prefix, whole=True, manifests=1)
        return *self._sent_again(prefix), moments

    def _piped(self, prefix: str, victim: str | None, moment: Moment | None, number: int) -> bool:
        """Run hash, manifest and upload, and strike one of them, or all; whether any was struck."""
        pipe = subprocess.PIPE
        names = ("dl-hash", "dl-manifest", "dl-upload")
        stages: dict[str, subprocess.Popen[bytes]] = {}
        struck = threading.Event()

        def strike() -> None:
            struck.set()
            while len(stages) < len(names):
                time.sleep(0.001)
            for name in names if victim == "all" else (victim,):
                stages[str(name)].send_signal(number)
            if number == signal.SIGKILL:
                for name in names if victim == "all" else (victim,):
                    while stages[str(name)].poll() is None:
                        time.sleep(0.001)

        if moment is not None and moment.what != "lines":
            self.store.arm(moment.what, moment.count, strike)
        stages["dl-hash"] = self._start("dl-hash", str(self.root), bufsize=0)
        stages["dl-manifest"] = self._start("dl-manifest", stdin=pipe, bufsize=0)
        stages["dl-upload"] = self._start(*self._uploading(prefix), stdin=pipe)

        whole: set[str] = set()

        def pump(name: str, to: str) -> None:
            source, target = stages[name].stdout, stages[to].stdin
            assert source is not None and target is not None
            with contextlib.suppress(OSError):  # there is more in it already
                fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, 4096)  # what a stage did is seen soon
            try:
                for count, line in enumerate(iter(source.readline, b""), 1):
                    if line.startswith(b'{"type":"end"') and b'"ok":true' in line:
                        whole.add(name)
                    if victim == name and moment is not None and moment.what == "lines" and count == moment.count:
                        strike()
                    target.write(line)
                    target.flush()
            except BrokenPipeError:
                source.close()  # as in a shell's pipe, whoever writes learns that nobody reads
            try:
                target.close()
            except BrokenPipeError:
                pass

        pumps = [threading.Thread(target=pump, args=pair) for pair in zip(names, names[1:], strict=False)]
        for each in pumps:
            each.start()
        last = stages["dl-upload"]
        last.stdin = None
        status, out, err = self._finished(last)
        for each in pumps:
            each.join(END_S)
        errors = err
        for name in names[:2]:
            stderr = stages[name].stderr
            assert stderr is not None
            stages[name].wait(END_S)
            errors += stderr.read()
            stderr.close()
        self.store.disarm()
        if b"Traceback" in errors:
            raise Violation(f"a traceback: {errors.decode()}")
        if not struck.is_set():
            if status or errors:
                raise Violation(f"status {status}: {errors.decode()}")
            return False
        if victim in ("dl-hash", "dl-manifest") and victim not in whole and status == 0:
            raise Violation(f"dl-upload took the stream of a {victim} that was struck for whole")
        if status == 0:
            return False  # it was over before the blow fell
        if victim in names[:2] and not out.endswith(b"}\n"):
            raise Violation(f"no end record: {out[-200:].decode()}")
        return True

    def _calibrate(self, kind: str, work: Callable[[], Any]) -> None:
        """Learn what the work takes when nobody disturbs it."""
        self.store.forget()
        self.service.forget()
        if kind not in self.usual:
            work()
            self._learn(kind, [("service ", self.service)])
            self._empty("kills/usual")
            shutil.rmtree(self.home)
            (self.home / "tmp").mkdir(parents=True)
            self.store.forget()
            self.service.forget()

    def _sent_again(self, prefix: str) -> tuple[int, int]:
        """(most bytes of a file that were sent again, most parts that the store had and were sent again)."""
        most_bytes = most_parts = 0
        for content in set(self.files.values()):
            path = f"/{BUCKET}/{prefix}/Data/{xxh3_128_hexdigest(content)}.xxh128"
            sent = sum(
                count for asked, count in self.store.sent.items() if asked.path == path and asked.method == "PUT"
            )
            most_bytes = max(most_bytes, sent - len(content))
            stored = [
                count for asked, count in self.store.answered.items() if asked.path == path and asked.method == "PUT"
            ]
            parts = len({asked for asked in self.store.answered if asked.path == path and asked.method == "PUT"})
            most_parts = max(most_parts, sum(stored) - parts)
        return most_bytes, most_parts

    def _check_bucket(self, prefix: str, *, whole: bool, manifests: int = 0) -> None:
        """Every key holds what its name says; no manifest is there before its files; nothing half done is left."""
        wanted = {f"Data/{xxh3_128_hexdigest(content)}.xxh128": content for content in self.files.values()}
        found = set()
        for row in self._listed(prefix):
            name = row.key.removeprefix(f"{prefix}/")
            found.add(name)
            if name.startswith("Data/") and row not in self._seen:
                self._seen.add(row)
                got = self.s3.get(row.key)
                if got is None or bytes(got.data) != wanted.get(name):
                    raise Violation(f"'{row.key}' holds what its name does not say")
        stored = {name for name in found if name.startswith("Data/")}
        published = found - stored
        if published and stored != wanted.keys():
            raise Violation(f"a manifest is there before its files: {published}")
        if whole:
            if stored != wanted.keys():
                raise Violation("the bucket is not whole")
            if len(published) != manifests:
                raise Violation(f"manifests: {published}")
            if left := self._uploads(prefix):
                raise Violation(f"uploads are left behind: {left}")
            self._empty(prefix)

    def _check_stopped(self, prefix: str) -> None:
        if left := self._uploads(prefix):
            # One whose id had not arrived is known to the journal, and aborted by the next run.
            journals = self.home / ".deadline" / "cache" / "uploads"
            if not journals.is_dir() or len(left) > len(os.listdir(journals)):
                raise Violation(f"a signal left uploads behind: {left}")

    def _uploads(self, prefix: str) -> list[str]:
        return [each.key for each in self.s3.uploads(f"{prefix}/")]

    def _listed(self, prefix: str) -> list[Found]:
        return [row for page in self.s3.pages(f"{prefix}/") for row in page.found]

    def _empty(self, prefix: str) -> None:
        keys = [row.key for row in self._listed(prefix)]
        for start in range(0, len(keys), 1000):
            self.s3.delete_many(keys[start : start + 1000])

    def _check_home(self) -> None:
        """Nothing but caches and settings is left in the home, and nothing in the folder for temporary files."""
        if left := os.listdir(self.home / "tmp"):
            raise Violation(f"temporary files are left: {left}")
        for path in self.home.rglob("*"):
            if path.is_file() and (path.suffix in (".tmp", ".part", ".parts", ".lock", ".pid") or "~tmp" in path.name):
                raise Violation(f"'{path}' is left")

    # Downloads.

    def _download(self, kills: int, number: int) -> tuple[int, int, list[Moment]]:
        if self._fetched is None:
            manifest = self._whole("bash", "-c", 'dl-hash "$0" | dl-manifest', str(self.root))
            (path,) = (Path(row["path"]) for row in manifest if row["type"] == "manifest")
            kept = self.folder / "manifest"
            shutil.copy(path, kept)
            self._whole("bash", "-c", f'dl-hash "$0" | dl-upload --s3-root-uri=s3://{BUCKET}/fetched', str(self.root))
            self._fetched = ("fetched", kept)
        prefix, manifest_path = self._fetched
        target = self.home / "target"
        conflict = self.dice.choice(("create_copy", "overwrite", "skip"))
        words = (
            "dl-download", f"--s3-root-uri=s3://{BUCKET}/{prefix}", f"--manifest={manifest_path}", f"--to={target}",
            "--limit-rate=400M", f"--conflict-resolution={conflict}",
        )  # fmt: skip
        self._calibrate("download", lambda: self._whole(*words))
        moments = []
        for _ in range(kills):
            moment = self._draw("download", "down", "down", "down", "requests", "answers")
            if self._struck(moment, lambda: self._start(*words), number):
                moments.append(moment)
                self._check_tree(target, self.files, whole=False)
                if number != signal.SIGKILL and target.is_dir():
                    self._check_no_temporaries(target)
        self._whole(*words)
        self._check_tree(target, self.files, whole=True)
        return self._received_again(f"/{BUCKET}/{prefix}/Data/", self.files.values()), 0, moments

    def _received_again(self, base: str, contents: Iterable[bytes]) -> int:
        most = 0
        for content in set(contents):
            path = f"{base}{xxh3_128_hexdigest(content)}.xxh128"
            asked = [each for each in self.store.received if each.path == path and each.method == "GET"]
            got = sum(self.store.received[each] - HEADS_BYTES * self.store.answered[each] for each in asked)
            most = max(most, got - len(content))
        return most

    def _check_tree(self, folder: Path, wanted: dict[str, bytes], *, whole: bool) -> None:
        """Whatever has its final name is right; and with `whole`, everything is there and nothing else."""
        found = {}
        for path in folder.rglob("*") if folder.is_dir() else ():
            if path.is_file():
                name = str(path.relative_to(folder))
                if path.name.startswith(".dl-"):
                    if whole:
                        raise Violation(f"'{path}' is left")
                    continue
                found[name] = path.read_bytes()
                if found[name] != wanted.get(name):
                    raise Violation(f"'{path}' is not what it should be")
        if whole and found.keys() != wanted.keys():
            raise Violation(f"missing: {wanted.keys() - found.keys()}")

    def _check_no_temporaries(self, folder: Path) -> None:
        if left := [str(path) for path in folder.rglob(".dl-*")]:
            raise Violation(f"a signal left {left}")

    # Syncs.

    @property
    def rendered(self) -> tuple[Path, dict[str, bytes]]:
        """The folder that jobs put out to, and what they put out."""
        out = self.folder / "out"
        if not hasattr(self, "_outputs"):
            self.renders = Renders(self.farm)
            outputs = {}
            for number in range(30):
                outputs[f"{number % 3}/{number}"] = f"{number} " * self.dice.randrange(0, 60_000)
            outputs["2/large"] = self.dice.randbytes(LARGE_BYTES // 2 + 3_000_000).hex()
            for job in range(3):
                mine = {name: text for name, text in outputs.items() if name.startswith(f"{job}/")}
                half = dict(list(mine.items())[::2])
                self.renders.submit(out, half, {name: text for name, text in mine.items() if name not in half})
            self.renders.render()
            self._outputs = {name: text.encode() for name, text in outputs.items()}
        return out, self._outputs

    def _syncing(self, checkpoint: Path) -> tuple[str, ...]:
        return (
            *self.renders.command("dl-sync", "--checkpoint-dir", str(checkpoint), "--ignore-storage-profiles"),
            "--bootstrap-lookback-minutes=600", "--limit-rate=300M",
        )  # fmt: skip

    def _sync(self, kills: int, number: int) -> tuple[int, int, list[Moment]]:
        out, wanted = self.rendered
        checkpoint = self.home / "checkpoint"
        words = self._syncing(checkpoint)
        shutil.rmtree(out, ignore_errors=True)
        self._calibrate("sync", lambda: self._whole(*words))
        shutil.rmtree(out, ignore_errors=True)
        moments = []
        for _ in range(kills):
            moment = self._draw("sync", "down", "down", "down", "requests", "answers", "service requests")
            if self._struck(moment, lambda: self._start(*words), number):
                moments.append(moment)
                self._check_tree(out, wanted, whole=False)
                if number != signal.SIGKILL and out.is_dir():
                    self._check_no_temporaries(out)
                    self._check_checkpoint(checkpoint)
        self._resumed(words)
        self._check_tree(out, wanted, whole=True)
        self._check_checkpoint(checkpoint)
        if self._whole(*words)[-1]["session_actions"]:
            raise Violation("it fetches again what it has fetched")
        return self._received_again(f"/{BUCKET}/{self.renders.prefix}/Data/", wanted.values()), 0, moments

    def _follow(self, kills: int, number: int) -> tuple[int, int, list[Moment]]:
        out, wanted = self.rendered
        checkpoint = self.home / "checkpoint"
        words = self._syncing(checkpoint)
        shutil.rmtree(out, ignore_errors=True)
        self._calibrate("sync", lambda: self._whole(*words))
        shutil.rmtree(out, ignore_errors=True)
        moments = []
        following = (*words, "--follow", "--interval=0.2")
        for _ in range(kills):
            moment = self._draw("sync", "down", "down", "answers", "service requests")
            if moment.what != "service requests" and moments:
                # What was fetched is not fetched again: the end of the work comes sooner, so strike while it lasts.
                moment = Moment("service requests", self.dice.randrange(1, 30))
            if self._struck(moment, lambda: self._start(*following), number):
                moments.append(moment)
                self._check_tree(out, wanted, whole=False)
        process = self._start(*following, stderr=subprocess.DEVNULL)
        began_ns = time.time_ns()
        timer = threading.Timer(END_S, process.kill)
        timer.start()
        # It is done when a round has ended, whose last deed is to save the checkpoint.
        while process.poll() is None and not self._is_done(checkpoint, began_ns):
            time.sleep(0.05)
        timer.cancel()
        process.terminate()
        status, rows, _ = self._finished(process)
        if status != 128 + signal.SIGTERM or json.loads(rows.splitlines()[-1])["ok"] is not False:
            raise Violation(f"a follower that was stopped ended with {status}")
        self._check_tree(out, wanted, whole=True)
        self._check_checkpoint(checkpoint)
        if self._whole(*words)[-1]["session_actions"]:
            raise Violation("it fetches again what it has fetched")
        return self._received_again(f"/{BUCKET}/{self.renders.prefix}/Data/", wanted.values()), 0, moments

    def _resumed(self, words: tuple[str, ...]) -> None:
        """Run after a kill; a word about the lock that is taken over is no trouble."""
        status, _, err = self._finished(self._start(*words))
        lines = [line for line in err.decode().splitlines() if "is removed: the process" not in line]
        if status or lines:
            raise Violation(f"dl-sync ended with {status}: {lines}")

    def _is_done(self, checkpoint: Path, began_ns: int) -> bool:
        for path in checkpoint.glob("*_download_checkpoint.json"):
            document = json.loads(path.read_text())
            completed, started = (document[f"downloads{name}Timestamp"] for name in ("Completed", "Started"))
            return path.stat().st_mtime_ns > began_ns and len(document["jobs"]) >= 3 and completed > started
        return False

    def _check_checkpoint(self, folder: Path) -> None:
        for path in folder.iterdir() if folder.is_dir() else ():
            if not path.name.endswith(("_checkpoint.json", "_failed_jobs.json", "_status.json")):
                raise Violation(f"'{path}' is left")
            json.loads(path.read_text())


def store_of(farm: Any) -> tuple[S3, str]:
    """The farm's store as its owner reaches it, past any gate, and the root prefix of its queue."""
    script = """
import json
from libdeadline.targets import target
found = target({})
keys = found.session.credentials()
queue = found.session.client("deadline").call("GetQueue", {"farmId": found.farm_id, "queueId": found.queue_id})
print(json.dumps([queue["jobAttachmentSettings"]["rootPrefix"], found.session.endpoint("s3"), found.session.region,
                  keys.access_key_id, keys.secret_access_key, keys.session_token]))
"""
    done = farm.run("python3", "-c", script)
    assert done.returncode == 0, done.stderr
    prefix, endpoint, region, *keys = json.loads(done.stdout)
    return S3(endpoint, region, lambda: Credentials(*keys), BUCKET), prefix
