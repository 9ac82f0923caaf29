"""Finds the manifests that tell what to fetch, and reads them, as what they are: hostile input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from queue import SimpleQueue
from threading import Thread
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from libdeadline import manifest, statuses
from libdeadline.errors import Trouble
from libdeadline.placing import IGNORES_CASE
from libdeadline.pool import taken
from libdeadline.s3 import Found
from libdeadline.store import Store, latest_outputs, output_key, root_of

if TYPE_CHECKING:
    from libdeadline.aws import Client

READERS = 10  # manifests that are fetched at the same time


class Source(NamedTuple):
    """A manifest to read: in the store (`manifest_path`, below Manifests/) or in a local `file`."""

    root: str | None
    root_path_format: str | None
    location: str | None = None
    manifest_path: str | None = None
    file: str | None = None
    hash: str | None = None
    output: bool = False
    modified: str = ""


class Loaded(NamedTuple):
    """A manifest that was read: its source, completed, and its bytes."""

    source: Source
    data: IO[bytes]
    size: int


def inputs(job: Mapping[str, Any]) -> list[Source]:
    """The input manifests of a job, as GetJob tells of it."""
    return [
        Source(
            each["rootPath"],
            each["rootPathFormat"].lower(),
            each.get("fileSystemLocationName"),
            each["inputManifestPath"],
            hash=each.get("inputManifestHash"),
        )
        for each in (job.get("attachments") or {}).get("manifests") or ()
        if each.get("inputManifestPath")
    ]


def outputs(
    store: Store,
    ids: Mapping[str, str],
    step_id: str | None,
    task_id: str | None,
    client: Client | None,
) -> list[Source]:
    """The output manifests of a job, a step or a task, the oldest first; of each task those of its latest attempt.

    Shape: `ids` has farmId, queueId and jobId. Without `client` the latest attempt of a task is the one whose folder
    sorts last, else the one that the service names.
    """
    below = f"{ids['farmId']}/{ids['queueId']}/{ids['jobId']}/"
    prefix = store.manifest_key(below)
    recorded: dict[str, str] = {}
    latest: str | None = None
    if task_id and client is not None:
        task = client.call("GetTask", {**ids, "stepId": step_id, "taskId": task_id})
        latest = task.get("latestSessionActionId")
        if latest is None:
            return []
        action = client.call("GetSessionAction", {**ids, "sessionActionId": latest})
        for each in action.get("manifests") or ():
            if each.get("outputManifestPath"):
                recorded[each["outputManifestPath"]] = each.get("outputManifestHash", "")
    # A step of chunks has no folders for tasks, so its whole folder is looked at.
    wanted = f"{step_id}/" if step_id else ""
    rows = []
    for page in store.s3.pages(prefix + wanted):
        for found in page.found:
            key = output_key(found.key[len(prefix) :])
            if key is None or (step_id and key.step_id != step_id):
                continue
            if task_id and (key.task_id or task_id) != task_id:
                continue
            rows.append((key, found))
    if latest is not None:
        of_action = [(key, found) for key, found in rows if key.action_id == latest]
        of_task = [(key, found) for key, found in of_action if key.task_id]
        chosen = of_task or of_action
    else:
        if task_id and any(key.task_id for key, _ in rows):
            rows = [(key, found) for key, found in rows if key.task_id]
        chosen = latest_outputs(rows)
    if chosen and client is not None and latest is None:
        recorded = recorded_hashes(client, ids)
    start = len(store.manifest_key(""))
    ordered: list[Found] = sorted((found for _, found in chosen), key=lambda found: (found.modified, found.key))
    return [
        Source(
            None,
            None,
            manifest_path=found.key[start:],
            hash=recorded.get(found.key[start:]) or None,
            output=True,
            modified=found.modified,
        )
        for found in ordered
    ]


def recorded_hashes(client: Client, ids: Mapping[str, str]) -> dict[str, str]:
    """The hashes that workers reported of a job's output manifests, by their place below Manifests/.

    Older workers report none, and not everyone may list sessions: what is not known can't be checked.
    """
    from libdeadline.aws import ServiceError

    found: dict[str, str] = {}
    sessions: SimpleQueue[str | None] = SimpleQueue()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while (session_id := sessions.get()) is not None:
                for action in client.items("ListSessionActions", {**ids, "sessionId": session_id}):
                    for each in action.get("manifests") or ():
                        if each.get("outputManifestPath") and each.get("outputManifestHash"):
                            found[each["outputManifestPath"]] = each["outputManifestHash"]
        except BaseException as error:
            failed.append(error)

    threads = []
    try:
        for session in client.items("ListSessions", dict(ids)):
            sessions.put(session["sessionId"])
        threads = [Thread(target=work, daemon=True) for _ in range(min(READERS, sessions.qsize()))]
    except ServiceError as error:
        failed.append(error)
    for thread in threads:
        sessions.put(None)
        thread.start()
    for thread in threads:
        thread.join()
    for each in failed:
        if not (isinstance(each, ServiceError) and each.status == statuses.NOT_ALLOWED):
            raise each
    return found


def load(store: Store | None, sources: Iterable[Source]) -> Iterator[Loaded]:
    """The manifests, in their order, fetched several at a time; outputs learn their root from their metadata.

    Raises: Trouble, where one is missing or not the one that was recorded.
    """
    wanted = list(sources)
    tasks: SimpleQueue[int | None] = SimpleQueue()
    done: SimpleQueue[tuple[int, Loaded | BaseException]] = SimpleQueue()

    def work() -> None:
        while (number := tasks.get()) is not None:
            try:
                done.put((number, _load(store, wanted[number])))
            except BaseException as error:
                done.put((number, error))

    for number in range(len(wanted)):
        tasks.put(number)
    for _ in range(min(READERS, len(wanted))):
        tasks.put(None)
        Thread(target=work, daemon=True).start()
    ready: dict[int, Loaded] = {}
    for number in range(len(wanted)):
        while number not in ready:
            which, result = taken(done)
            if isinstance(result, BaseException):
                raise result
            ready[which] = result
        yield ready.pop(number)


def _load(store: Store | None, source: Source) -> Loaded:
    if source.file is not None:
        file = open(source.file, "rb")  # noqa: SIM115
        return Loaded(source, file, os.fstat(file.fileno()).st_size)
    assert store is not None and source.manifest_path is not None
    found = store.read_manifest(source.manifest_path, source.hash)
    if found is None:
        key = store.manifest_key(source.manifest_path)
        raise Trouble(f"there is no manifest '{store.s3.url(key)}'", statuses.NO_INPUT)
    if source.root is None:
        metadata = found.metadata
        source = source._replace(root=root_of(metadata), location=metadata.get("file-system-location-name"))
    return Loaded(source._replace(hash=found.hash), found.data, found.size)


class Files:
    """The files of one root, by one manifest or several of which the later ones win. May be iterated repeatedly."""

    def __init__(self, parts: list[Loaded], *, windows: bool = os.name == "nt") -> None:
        self._windows = windows
        self._sorted: dict[int, bool] = {}
        self._single: Loaded | None = parts[0] if len(parts) == 1 else None
        self._merged: manifest.Builder | None = None
        if self._single is None:
            self._merged = manifest.Builder()
            for part in parts:
                for entry in self._checked(part):
                    self._merged.add(*entry)

    def __iter__(self) -> Iterator[manifest.Entry]:
        """Raises: Trouble (65) where a path could lead out of the root, stands twice, or stands in no manifest."""
        if self._single is not None:
            return self._checked(self._single)
        assert self._merged is not None
        checked = manifest.check_packed(self._merged.packed(), windows=self._windows, ignore_case=IGNORES_CASE)
        return manifest.unpacked(checked)

    def _is_sorted(self, part: Loaded, name: str) -> bool:
        """Whether a large manifest is in order, as canonical ones are: then it need not be held in memory."""
        if id(part) not in self._sorted:
            self._sorted[id(part)] = manifest.is_ordered(part.data, name)
        return self._sorted[id(part)]

    def _checked(self, part: Loaded) -> Iterator[manifest.Entry]:
        name = part.source.manifest_path or part.source.file or "manifest"
        part.data.seek(0)
        rows = manifest.read_packed(part.data, name)
        if part.size <= manifest.SORTED_BYTES or not self._is_sorted(part, name):
            rows = iter(sorted(rows))
        checked = manifest.check_packed(rows, windows=self._windows, ignore_case=IGNORES_CASE)
        return manifest.unpacked(checked)
