"""The real store over a wire that resets, stalls and ends at any byte: all is stored and fetched as it is."""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from renders import Renders, texts

QUICK = ("--retry-for=20", "--stall=1")


class Wire:
    """A relay to an endpoint, whose connections fail by the dice of a seed."""

    def __init__(self, endpoint: str, seed: int, share: float) -> None:
        parts = urlsplit(endpoint)
        self.to = (parts.hostname, parts.port)
        self.dice, self.share, self.lock = random.Random(seed), share, threading.Lock()
        self.faults = 0
        self.is_fresh = True  # no connection yet
        self.over = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.listener.close()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(self.to)
            except OSError:
                return
            with self.lock:
                # The first never holds: where threads are few, it may be the only one for long.
                first, self.is_fresh = self.is_fresh, False
                fault = self.dice.choice(["reset", "end", "stall"]) if first or self.dice.random() < self.share else ""
                most = 200 if first else self.dice.choice([600, 100_000])
                inward, limit = self.dice.random() < 0.5, self.dice.randrange(1, most)
            for source, sink, is_inward in ((near, far, False), (far, near, True)):
                of_this = fault if is_inward == inward else ""
                threading.Thread(target=self.relay, args=(source, sink, near, of_this, limit), daemon=True).start()

    def relay(self, source: socket.socket, sink: socket.socket, near: socket.socket, fault: str, limit: int) -> None:
        try:
            while block := source.recv(65536):
                if fault and limit < len(block):
                    sink.sendall(block[:limit])
                    self.faults += 1
                    if fault == "stall":
                        self.over.wait(1.5)
                    elif fault == "reset":
                        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                limit -= len(block)
                sink.sendall(block)
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
                each.close()
            except OSError:
                pass


@pytest.fixture(scope="module")
def renders(farm: Any) -> Renders:
    return Renders(farm)


def endpoint(farm: Any) -> str:
    return str(farm.environment["AWS_ENDPOINT_URL_S3"])


@pytest.mark.parametrize("seed", [1, 2])
def test_output_is_fetched(farm: Any, renders: Renders, tmp_path: Path, seed: int) -> None:
    out, folder = tmp_path / "out", tmp_path / "checkpoint"
    renders.sync(folder)
    dice = random.Random(seed)
    wanted = [
        {f"{task}/{name}": f"{seed}{task}{name}" * dice.choice([0, 1, 500, 30_000]) for name in range(12)}
        for task in range(4)
    ]
    renders.submit(out, *wanted)
    renders.render()
    with Wire(endpoint(farm), seed, 0.5) as wire:
        done = renders.sync(folder, *QUICK, environment={"AWS_ENDPOINT_URL_S3": wire.endpoint})
        assert wire.faults
    assert texts(out) == {name: text for each in wanted for name, text in each.items()}
    assert set(done.files.values()) == {"new"}
    assert {row["download_status"] for row in done.jobs.values()} == {"downloaded"}


@pytest.mark.parametrize("seed", [3, 4])
def test_input_is_stored(farm: Any, renders: Renders, tmp_path: Path, seed: int) -> None:
    source = tmp_path / "source"
    dice = random.Random(seed)
    for number in range(60):
        path = source / str(number % 7) / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(dice.choice([0, 1, 5000, 131_073, 400_000])))
    stages = 'dl-hash "$0" | dl-manifest | dl-upload "$@"'
    words = renders.command("bash", "-c", stages, str(source), *QUICK)
    with Wire(endpoint(farm), seed, 0.5) as wire:
        environment = {**farm.environment, "HOME": str(tmp_path), "AWS_ENDPOINT_URL_S3": wire.endpoint}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert wire.faults
    audit = farm.run(*renders.command("dl-verify"))
    assert audit.returncode == 0, audit.stdout
