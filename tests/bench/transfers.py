#!/usr/bin/env python3
"""transfers.py - dl-upload and dl-download against the reference client, on one S3 server

Usage: transfers.py [--reference=<deadline>] [--rounds=<n>] [--sets=<names>] [--small=<n>] [--scratch=<dir>]

--reference  the reference's `deadline` command; without it only ours is measured
--sets       comma list of small, medium, large, twins [default: small,medium,large,twins]
--small      files of the small set [default: 2000]

Makes the data, starts dl-s3d over an empty folder, and runs both clients in turn, each with an empty HOME. Prints for
each: wall, CPU seconds of user and system, peak memory, and how many times the reference took (median of rounds).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic

KEY, SECRET = "AKIABENCHBENCHBENCH0", "bench"


def options() -> dict[str, str]:
    found = {"reference": "", "rounds": "3", "sets": "small,medium,large,twins", "small": "2000", "scratch": ""}
    for word in sys.argv[1:]:
        name, equals, value = word.removeprefix("--").partition("=")
        if name not in found or not equals:
            raise SystemExit(__doc__)
        found[name] = value
    return found


def make(folder: Path, name: str, small: int) -> None:
    dice = random.Random(name)
    shapes = {
        "small": [(f"d{i // 250}/{i}", dice.randrange(4096, 65536)) for i in range(small)],
        "medium": [(str(i), 4 << 20) for i in range(100)],
        "large": [(str(i), 512 << 20) for i in range(2)],
        "twins": [(f"d{i // 250}/{i}", dice.randrange(4096, 65536)) for i in range(small)],
    }
    contents: list[bytes] = []
    for path, size in shapes[name]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with open(folder / path, "wb") as file:
            if name == "twins":
                if len(contents) < small // 10:
                    contents.append(dice.randbytes(size))
                file.write(dice.choice(contents))
            else:
                for _ in range(0, size, 1 << 20):
                    file.write(dice.randbytes(min(size, 1 << 20)))


def measured(words: list[str], environment: dict[str, str], stdin: Path | None = None, cwd: Path | None = None):
    """(wall s, CPU s, peak MB) of a command that succeeds."""
    began = monotonic()
    with open(stdin or os.devnull, "rb") as source, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            words, env=environment, stdin=source, stdout=subprocess.DEVNULL, stderr=errors, cwd=cwd
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{words}: {process.returncode}: {errors.read()[-800:].decode()}")
    return monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


class Sts(BaseHTTPRequestHandler):
    """Answers GetCallerIdentity, which the reference asks before it reaches for S3."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        result = "<GetCallerIdentityResult><Account>000000000000</Account></GetCallerIdentityResult>"
        space = "https://sts.amazonaws.com/doc/2011-06-15/"
        body = f'<GetCallerIdentityResponse xmlns="{space}">{result}</GetCallerIdentityResponse>'.encode()
        self.send_response(200)
        self.send_header("content-type", "text/xml")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Bench:
    def __init__(self, given: dict[str, str]) -> None:
        self.given = given
        self.folder = Path(tempfile.mkdtemp(prefix="dl-bench-", dir=given["scratch"] or None))
        fast = Path("/dev/shm")
        self.out = Path(tempfile.mkdtemp(prefix="dl-bench-", dir=fast if fast.is_dir() else None))
        keys = self.folder / "farm" / "keys"
        keys.mkdir(parents=True)
        (keys / "master").write_bytes(os.urandom(32))
        (keys / "access.json").write_text(json.dumps({KEY: {"secret": SECRET, "principal": "admin"}}))
        for each in keys.iterdir():
            each.chmod(0o600)
        self.server = subprocess.Popen(
            ["dl-s3d", f"--dir={self.folder / 'farm'}", "--listen=127.0.0.1:0"], stdout=subprocess.PIPE
        )
        assert self.server.stdout is not None
        self.url = json.loads(self.server.stdout.readline())["data"]["url"]
        self.runs = 0
        self.sts = ThreadingHTTPServer(("127.0.0.1", 0), Sts)
        Thread(target=self.sts.serve_forever, daemon=True).start()
        from libdeadline.aws import Credentials
        from libdeadline.s3 import S3

        S3(self.url, "us-west-2", lambda: Credentials(KEY, SECRET), "bench")._request("store", "PUT", None)

    def environment(self) -> dict[str, str]:
        self.runs += 1
        home = self.folder / f"home{self.runs}"
        home.mkdir()
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{self.sts.server_address[1]}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-west-2",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_ACCOUNT_ID": "000000000000",
            "AWS_EC2_METADATA_DISABLED": "true",
            "DEADLINE_CLOUD_TELEMETRY_OPT_OUT": "true",
        }

    def run(self, name: str) -> None:
        root = self.folder / name
        make(root, name, int(self.given["small"]))
        stream, manifests = self.folder / f"{name}.records", self.folder / f"{name}.manifests"
        with open(stream, "wb") as file:
            subprocess.run(["dl-hash", str(root)], stdout=file, check=True, env=self.environment())
        with open(stream, "rb") as source:
            to = ["dl-manifest", f"--to={manifests}"]
            subprocess.run(to, stdin=source, stdout=subprocess.DEVNULL, check=True, env=self.environment())
        manifest = next(manifests.iterdir())
        reference = self.given["reference"]
        figures: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        for number in range(int(self.given["rounds"])):
            uris = {who: f"s3://bench/{name}-{who}{number}" for who in ("ours", "ref")}
            for who in ("ours", "ref") if number % 2 else ("ref", "ours"):
                if who == "ref" and not reference:
                    continue
                of_ref = [reference, "attachment"]
                where = ["--profile", "(default)", "-m", str(manifest), "--s3-root-uri", uris[who]]
                up = [*of_ref, "upload", *where, "-r", str(root)]
                if who == "ours":
                    up = ["dl-upload", f"--s3-root-uri={uris[who]}"]
                down = [*of_ref, "download", *where]
                if who == "ours":
                    down = ["dl-download", f"--s3-root-uri={uris[who]}", f"--manifest={manifest}", "--to=x"]
                for what, words in (("upload", up), ("upload again, no cache", up), ("download", down)):
                    target = self.out / "run"
                    target.mkdir()
                    feed = stream if what != "download" and who == "ours" else None
                    result = measured(words, self.environment(), feed, target)
                    figures.setdefault((what, who), []).append(result)
                    shutil.rmtree(target)
        for what in ("upload", "upload again, no cache", "download"):
            ours = figures[what, "ours"]
            text = f"{name:7} {what:23} ours {_shown(ours)}"
            if theirs := figures.get((what, "ref")):
                wall, cpu = (statistics.median(t[i] / o[i] for t, o in zip(theirs, ours, strict=True)) for i in (0, 1))
                text += f"   ref {_shown(theirs)}   {wall:5.1f}x wall {cpu:5.1f}x CPU"
            print(text, flush=True)
        shutil.rmtree(root)

    def close(self) -> None:
        self.server.terminate()
        self.server.wait()
        shutil.rmtree(self.folder)
        shutil.rmtree(self.out)


def _shown(rows: list[tuple[float, float, float]]) -> str:
    wall, cpu, peak = (statistics.median(row[i] for row in rows) for i in range(3))
    return f"{wall:6.2f} s {cpu:6.2f} s {peak:4.0f} MB"


def main() -> None:
    given = options()
    bench = Bench(given)
    try:
        for name in given["sets"].split(","):
            bench.run(name)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
