"""The files of a session: the job's attachments synced to here, and what its tasks make of them stored.

Source: spec attachments 11; spec worker 2.6.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from libdeadline import statuses
from libdeadline.errors import Trouble
from libdeadline.progress import size_text
from libdeadline.records import Error, File, Manifest, Progress, Record, Root

from . import asset_roots, job_environment
from .folder import SessionFolder
from .transfers import Pipeline, Transfer, tool, write_rules

Say = Callable[[str], None]


class SessionFiles:
    """Asset roots with their folders here, what is known of the files in them, and the tools that move those."""

    def __init__(
        self,
        folder: SessionFolder,
        opening: Mapping[str, Any],
        job: Mapping[str, Any],
        manifests: Sequence[Mapping[str, Any]],
        environment: Mapping[str, str],
        say: Say,
    ) -> None:
        """`environment` is what processes of the session get; `say` adds a line to its log.

        Raises: as asset_roots.place; OSError.
        """
        self.folder, self.opening, self.say = folder, opening, say
        self.settings = job.get("jobAttachmentSettings")
        self.environment = environment
        self.group = (opening.get("job_user") or {}).get("group")
        self.roots = asset_roots.place(manifests, job.get("pathMappingRules") or (), opening["session_dir"])
        self.seen = {root.root_path: asset_roots.Seen(root) for root in self.roots}
        self.is_synced = False
        for root in self.roots:
            if root.is_dynamic:
                for path in ("", *root.output_dirs):
                    place = os.path.join(root.local_root, path)
                    os.makedirs(place, exist_ok=True)
                    if self.group:
                        share(place, self.group)
        self.rules_file = write_rules(folder.file("path-mapping-rules.json"), [root.rule for root in self.roots])

    @property
    def rules(self) -> list[dict[str, str]]:
        """The path mapping rules that lead to folders of this session."""
        return [root.rule for root in self.roots if root.is_dynamic]

    def sync(
        self,
        transfer: Transfer,
        dependencies: Sequence[str] | None,
        progress: Callable[[float | None, str | None], None],
    ) -> None:
        """Fetch the job's inputs, or the outputs of the steps `dependencies`, which overwrite them.

        Raises: Trouble, Cancelled; some files may be there then.
        """
        common = [
            tool("dl-download"),
            *self._store(),
            f"--path-mapping-rules={self.rules_file}",
            "--conflict-resolution=overwrite",
        ]
        runs: list[tuple[list[str], list[Record] | None]] = []
        if dependencies is not None:
            if not self.is_synced:
                raise Trouble("the outputs of other steps can only be synced after the job's own inputs")
            ids = [f"--{name}-id={self.opening[f'{name}_id']}" for name in ("farm", "queue")]
            job_id = self.opening["job_id"]
            runs += [([*common, *ids, f"--step-id={each}", "--", job_id], None) for each in dependencies]
        elif manifests := [_input_manifest(root) for root in self.roots if root.input_manifest_path]:
            runs.append((common, manifests))
        self.say("Syncing " + ("input files" if dependencies is None else "outputs of the steps that this one needs"))
        count = size = 0

        def take(row: Record) -> None:
            nonlocal count, size
            seen = self.seen.get(row.root or "") if isinstance(row, File) else None
            if seen is None or not isinstance(row, File) or row.size is None or row.mtime is None:
                return
            if self.group:
                share(os.path.join(seen.root.local_root, row.path), self.group, top=seen.root.local_root)
            seen.add(row.path, row.size, row.mtime)
            count, size = count + 1, size + row.size

        def tell(row: Progress | Error) -> None:
            if isinstance(row, Error):
                self._tell_error(row)
                return
            total = row.total_bytes or 0
            done = min(row.done_bytes or 0, total)
            if total:
                progress(100 * done / total, f"{row.tool}: {size_text(done)} of {size_text(total)}")

        for command, rows in runs:
            transfer.run(Pipeline([command], self._tool_environment()), rows, (File,), take, tell)
        self.is_synced = True
        self.say(f"Synced {count} files, {size} bytes")

    def store(
        self,
        transfer: Transfer,
        action_id: str,
        started_at: float,
        ids: Mapping[str, str],
        variables: Mapping[str, str],
    ) -> list[dict[str, str]]:
        """Upload what a task changed; the `manifests` of its report, one entry for each of the job's manifests.

        `ids` has the step's and, where there is one, the task's; `variables` are those of the task.
        Raises: Trouble, Cancelled; nothing is told of then, and what was stored does no harm.
        """
        counts = dict.fromkeys(self.seen, 0)
        rows = self._changed(counts)
        first = next(rows, None)
        if first is None:
            self.say("No output files to store")
            return [{} for _ in self.roots]
        stored: dict[str, dict[str, str]] = {}

        def take(row: Record) -> None:
            if isinstance(row, Manifest) and row.manifest_path:
                told = {"outputManifestPath": row.manifest_path, "outputManifestHash": row.hash or ""}
                stored[row.root or ""] = told
            elif isinstance(row, File):
                seen, size, mtime = self.seen.get(row.root or ""), row.size, row.mtime
                if seen and size is not None and mtime is not None:
                    # As it was hashed: what changed since is output of the next task.
                    seen.note(row.path, size, mtime)

        def tell(row: Progress | Error) -> None:
            if isinstance(row, Error):
                self._tell_error(row)

        self.say("Storing output files")
        environment = {
            **self._tool_environment(),
            **variables,
            "DEADLINE_SESSIONACTION_START_TIME": repr(started_at),
        }
        pipeline = Pipeline(self._upload(action_id, started_at, ids), environment)
        try:
            transfer.run(pipeline, chain([first], rows), (Manifest, File), take, tell)
            for root_path, count in counts.items():
                if count and root_path not in stored:
                    raise Trouble(f"dl-upload told no manifest of '{root_path}'", statuses.SOFTWARE)
                self.seen[root_path].add_noted()
        finally:
            for seen in self.seen.values():
                seen.forget_noted()
        self.say(f"Stored {sum(counts.values())} output files")
        return [stored.get(root.root_path, {}) for root in self.roots]

    def _changed(self, counts: dict[str, int]) -> Iterator[Record]:
        """The records of what a task changed, found as they are asked for, and counted by root."""
        for root in self.roots:
            for path, size, mtime in self.seen[root.root_path].changed():
                if not counts[root.root_path]:
                    yield Root.of(
                        root=root.root_path,
                        root_path_format=root.root_path_format,
                        file_system_location_name=root.file_system_location_name,
                    )
                counts[root.root_path] += 1
                yield File.of(path=path, root=root.root_path, size=size, mtime=mtime)

    def _upload(self, action_id: str, started_at: float, ids: Mapping[str, str]) -> list[list[str]]:
        rules = f"--path-mapping-rules={self.rules_file}"
        all_ids = {name: self.opening[f"{name}_id"] for name in ("farm", "queue", "job")} | dict(ids)
        return [
            [tool("dl-hash"), "--no-cache", rules],
            [tool("dl-manifest"), f"--to={self.folder.file('manifests')}"],
            [
                tool("dl-upload"),
                "--output",
                rules,
                *self._store(),
                *(f"--{name}-id={value}" for name, value in all_ids.items()),
                f"--session-action-id={action_id}",
                f"--session-action-start-time={started_at!r}",
            ],
        ]

    def _store(self) -> list[str]:
        if not self.settings:
            raise Trouble("the queue has no job attachment settings, so there is no store to get the files from")
        return [f"--s3-root-uri=s3://{self.settings['s3BucketName']}/{self.settings['rootPrefix']}"]

    def _tool_environment(self) -> dict[str, str]:
        return {
            **job_environment.scrubbed(),
            **self.environment,
            # The agent's user may have settings of its own, such as a profile; they aren't this session's.
            "DEADLINE_CONFIG_FILE_PATH": self.folder.file("client-config"),
        }

    def _tell_error(self, row: Error) -> None:
        self.say(f"{row.tool}: {row.message}" if row.tool else row.message)


def _input_manifest(root: asset_roots.AssetRoot) -> Record:
    return Manifest.of(
        root=root.root_path,
        root_path_format=root.root_path_format,
        file_system_location_name=root.file_system_location_name,
        manifest_path=root.input_manifest_path,
        hash=root.input_manifest_hash,
    )


def share(path: str, group: str, top: str | None = None) -> None:
    """Let the job's group read and write `path`, and the folders above it up to `top`."""
    while True:
        with contextlib.suppress(OSError):
            shutil.chown(path, group=group)
            mode = os.stat(path).st_mode
            os.chmod(path, stat.S_IMODE(mode) | (0o070 if stat.S_ISDIR(mode) else 0o060))
        if top is None or len(path) <= len(top):
            return
        path = os.path.dirname(path)
