#!/usr/bin/env python3
"""million.py - a submission and a download of a million files, and what each process needs for it

Usage: million.py [options]

Options:
  --files=<n>      Files of the tree and of the job's output [default: 1000000].
  --contents=<n>   Distinct contents among them [default: 1000].
  --only=<scenes>  Comma list of scenes: submit, manifests, care, inputs, outputs,
                   large [default: submit,manifests,care,inputs,outputs,large].
  --scratch=<dir>  Where all of it is made; memory is quickest, and a million files
                   take 4 GB of it [default: /dev/shm].
  -h, --help       Show this text and exit.

Makes the files and an embedded farm with one worker, runs the stages and the commands on them, and prints wall
seconds, CPU seconds and peak MiB of each process (of a command: of its largest), with the bound that it should keep;
"!" marks what went beyond. Outputs are those of a real task that writes as many files. In the end all is deleted.
Nothing here passes or fails: tests/faults/test_memory.py guards the bounds, with fewer records.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from docopt import docopt

TOOLS = Path(sys.executable).parent
FOLDER_FILES = 1000
HASHING, PASSING, WHOLE, STREAMED, LARGE = 40, 20, 850, 100, 64  # MiB: the bounds
# A small process waits for each stage: the memory of the one that starts it is counted as its own.
STARTER = """
import json, os, resource, subprocess, sys, time
began = time.perf_counter()
status = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
figures = [status, time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]
os.write(int(sys.argv[1]), json.dumps(figures).encode())
"""
OUTPUT_SCRIPT = """
import os
for folder in range({files} // 1000):
    os.makedirs(path := f"{{{{Param.Out}}}}/part_{{folder:04}}")
    for number in range(1000):
        with open(f"{{path}}/frame.{{number:04}}.txt", "w") as file:
            file.write(str((folder * 7 + number) % {contents}))
"""


class Bench:
    """A farm of its own, and the measuring of what runs against it."""

    def __init__(self, scratch: str, files: int, contents: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dl-million-", dir=scratch))
        self.files, self.contents = files, contents
        self.tree, self.bundle = self.folder / "tree", self.folder / "bundle"
        self.job = ""
        home = self.folder / "home"
        home.mkdir()
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DEADLINE_", "DL_"))}
        self.environment = {**plain, "HOME": str(home), "PATH": f"{TOOLS}:{os.environ['PATH']}"}

    def up(self) -> None:
        """Start the farm, and point every command at it."""
        subprocess.run(["dl-farm", "up", "--workers=1"], env=self.environment, stdout=subprocess.DEVNULL, check=True)
        told = subprocess.run(
            ["sh", "-c", 'eval "$(dl-farm env)"; env -0'], env=self.environment, stdout=subprocess.PIPE, check=True
        )
        self.environment = dict(line.split("=", 1) for line in told.stdout.decode().split("\0") if line)

    def down(self) -> None:
        subprocess.run(["dl-farm", "down"], env=self.environment, stdout=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(
        self, *stages: str, bounds: tuple[int, ...], into: Path | None = None, answers: tuple[int, ...] = ()
    ) -> bytes:
        """Run stages on pipes and print the figures of each; what the last one wrote, or its end where that is long.

        `bounds` are MiB, one for each stage.
        Raises: SystemExit where a stage fails, but for statuses in `answers`.
        """
        kept = into or self.folder / "output"
        errors = self.folder / "errors"
        upstream: Any = subprocess.DEVNULL
        children = []
        with open(kept, "wb") as target, open(errors, "wb") as told:
            for number, stage in enumerate(stages):
                reader, writer = os.pipe()
                child = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", STARTER, str(writer), *stage.split()],
                    stdin=upstream,
                    stdout=target if number == len(stages) - 1 else subprocess.PIPE,
                    stderr=told,
                    env=self.environment,
                    cwd=self.folder,
                    pass_fds=(writer,),
                )
                os.close(writer)
                if upstream is not subprocess.DEVNULL:
                    upstream.close()
                upstream = child.stdout
                children.append((child, reader))
        for stage, (child, reader), bound in zip(stages, children, bounds, strict=True):
            with open(reader, "rb") as figures:
                status, wall, cpu, peak = json.load(figures)
            child.wait()
            mark = "!" if peak > bound else ""
            print(f"  {shortened(stage):58}{wall:9.1f}{cpu:9.1f}{peak:9.1f}{bound:6}{mark}", flush=True)
            if status and status not in answers:
                raise SystemExit(f"{stage}: status {status}: {errors.read_text()[-2000:]}")
        with open(kept, "rb") as file:
            file.seek(-min(kept.stat().st_size, 1 << 20), os.SEEK_END)
            return file.read()

    def show_running(self, tool: str, bound: int) -> None:
        """The peak of a process of the farm that is still there."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode()
                peaks = [line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM:")]
            except OSError:
                continue
            if tool in words and str(self.folder) in words and peaks:
                peak = int(peaks[0].split()[1]) / 1024
                print(
                    f"  {tool + ' (of the farm)':58}{'':18}{peak:9.1f}{bound:6}{'!' if peak > bound else ''}",
                    flush=True,
                )

    def scene(self, title: str) -> None:
        print(f"\n{title:60}{'wall s':>9}{'CPU s':>9}{'MiB':>9}{'bound':>6}")

    # What is measured.

    def make(self) -> None:
        """The tree, and a bundle that has it as input and writes as many files."""
        for folder in range(self.files // FOLDER_FILES):
            path = self.tree / f"shot_{folder % 20:03}" / f"layer_{folder // 20:02}"
            path.mkdir(parents=True)
            for number in range(FOLDER_FILES):
                with open(f"{path}/frame.{number:04}.exr", "wb", buffering=0) as file:
                    if content := (folder * 7 + number) % self.contents:
                        file.write(b"content %d\n" % content)
        self.write_bundle(self.bundle, [("In", "IN", self.tree)], "pass")
        self.write_bundle(
            self.folder / "writes",
            [("Out", "OUT", self.folder / "out")],
            OUTPUT_SCRIPT.format(files=self.files, contents=self.contents),
        )

    def write_bundle(self, folder: Path, paths: list[tuple[str, str, Path]], script: str) -> None:
        folder.mkdir()
        template = {
            "specificationVersion": "jobtemplate-2023-09",
            "name": folder.name,
            "parameterDefinitions": [
                {"name": name, "type": "PATH", "objectType": "DIRECTORY", "dataFlow": flow} for name, flow, _ in paths
            ],
            "steps": [{
                "name": "only",
                "script": {
                    "embeddedFiles": [{"name": "Run", "type": "TEXT", "data": script}],
                    "actions": {"onRun": {"command": sys.executable, "args": ["{{Task.File.Run}}"]}},
                },
            }],
        }  # fmt: skip
        values = [{"name": name, "value": str(path)} for name, _, path in paths]
        (folder / "template.json").write_text(json.dumps(template))
        (folder / "parameter_values.json").write_text(json.dumps({"parameterValues": values}))

    def submit(self) -> None:
        self.scene("submission of the tree, stage by stage, and by one command, nothing being new")
        known = f"--known-asset-path={self.folder}"
        told = self.run(
            f"dl-bundle {known} --target-task-run-status SUSPENDED -- {self.bundle}",
            "dl-hash",
            f"dl-manifest --to {self.folder / 'manifests'} --name tree",
            "dl-upload",
            "dl-submit",
            bounds=(LARGE, HASHING, WHOLE, LARGE, PASSING),
        )
        self.job = next(row["job_id"] for row in rows(told) if row["type"] == "job")
        suspended = "--target-task-run-status SUSPENDED"
        self.run(f"deadline bundle submit --yes {known} {suspended} {self.bundle}", bounds=(WHOLE,))

    def manifests(self) -> None:
        self.scene("manifests")
        path = self.tree_manifest()
        hashed = self.folder / "hashed"
        self.run(f"dl-hash {self.tree}", bounds=(HASHING,), into=hashed)
        self.run(f"dl-manifest cat {path}", bounds=(PASSING,))
        self.run(f"dl-manifest stat {path}", bounds=(PASSING,))
        self.run(f"dl-manifest cat {path}", f"dl-manifest --root {self.tree}", bounds=(PASSING, WHOLE))
        self.run(f"dl-manifest merge {path} {path}", bounds=(WHOLE,))
        self.run(f"dl-manifest subtract {path} {path}", bounds=(WHOLE,))
        self.run(f"dl-diff {path} {self.tree}", bounds=(WHOLE,))
        self.run(f"cat {hashed}", f"dl-diff {path}", bounds=(PASSING, WHOLE))
        self.run(f"dl-diff {path} {path}", bounds=(WHOLE,))
        snapshots = self.folder / "snapshots"
        snapshots.mkdir()
        self.run(f"deadline manifest snapshot --root {self.tree} --destination {snapshots} --name a", bounds=(WHOLE,))
        (self.tree / "new").write_text("new")
        self.run(
            f"deadline manifest snapshot --root {self.tree} --destination {snapshots} --name b --diff {path}",
            bounds=(WHOLE,),
        )
        self.run(f"deadline manifest diff --root {self.tree} --manifest {path}", bounds=(WHOLE,), answers=(1,))
        (self.tree / "new").unlink()
        self.run(f"deadline manifest upload --s3-cas-uri s3://deadline-local/DeadlineCloud {path}", bounds=(STREAMED,))
        downloaded = self.folder / "downloaded"
        downloaded.mkdir()
        self.run(f"deadline manifest download --job-id {self.job} {downloaded}", bounds=(WHOLE,))

    def tree_manifest(self) -> Path:
        return next(path for path in (self.folder / "manifests").iterdir() if path.name.startswith("tree-"))

    def care(self) -> None:
        self.scene("care of the store")
        self.run("dl-verify --quick", bounds=(STREAMED,))
        self.run("dl-verify", bounds=(STREAMED,))
        self.run("dl-gc", bounds=(STREAMED,))

    def inputs(self) -> None:
        self.scene("download of the job's input")
        to = self.folder / "inputs"
        self.run(f"dl-download --input --list {self.job}", bounds=(LARGE,))
        self.run(f"dl-download --input --to {to} {self.job}", bounds=(LARGE,))
        self.run(f"dl-download --input --to {to} {self.job}", bounds=(LARGE,))
        self.run(f"dl-diff {self.tree_manifest()} {to}", bounds=(WHOLE,))
        shutil.rmtree(to)

    def outputs(self) -> None:
        self.scene("a task that writes as many files, and the download of what it wrote")
        shutil.rmtree(self.tree, ignore_errors=True)  # memory is dear
        self.run("dl-sync --ignore-storage-profiles", bounds=(STREAMED,))  # makes the checkpoint
        told = self.run(f"deadline bundle submit --yes --known-asset-path={self.folder} {self.folder / 'writes'}",
                        bounds=(WHOLE,))  # fmt: skip
        job = told.decode().split()[-1]
        self.run(f"dl-wait {job}", bounds=(PASSING,))
        self.show_running("dl-session", LARGE)
        self.run(f"dl-download --to {self.folder / 'got'} {job}", bounds=(LARGE,))
        shutil.rmtree(self.folder / "got")
        self.run("dl-sync --ignore-storage-profiles", bounds=(STREAMED,))
        shutil.rmtree(self.folder / "out")

    def large(self) -> None:
        self.scene("3 files of 1 GiB")
        source, to = self.folder / "large", self.folder / "large-again"
        source.mkdir()
        block = os.urandom(1 << 20)
        for number in range(3):
            with open(source / str(number), "wb") as file:
                for part in range(1024):
                    file.write(block[:-8] + (number << 32 | part).to_bytes(8, "big"))
        root = "--s3-root-uri=s3://deadline-local/DeadlineCloud"
        manifests = self.folder / "large-manifests"
        self.run(
            f"dl-hash {source}", f"dl-manifest --to {manifests}", f"dl-upload {root} --manifest-prefix=large",
            bounds=(HASHING, PASSING, LARGE),
        )  # fmt: skip
        self.run(f"dl-download {root} --manifest {next(manifests.iterdir())} --to {to}", bounds=(LARGE,))
        self.run(f"dl-hash --rehash {to}", bounds=(HASHING,))


def shortened(stage: str) -> str:
    words = [word if len(word) < 20 else f"...{word[-12:]}" for word in stage.split()]
    text = " ".join(words)
    return text if len(text) < 57 else text[:54] + "..."


def rows(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()[1:]]


def main() -> None:
    args = docopt(__doc__)
    bench = Bench(args["--scratch"], int(args["--files"]), int(args["--contents"]))
    try:
        bench.up()
        bench.make()
        for scene in args["--only"].split(","):
            getattr(bench, scene)()
    finally:
        bench.down()


if __name__ == "__main__":
    main()
