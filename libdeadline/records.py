"""The kinds of record that tools pass over pipes, and their codec: one JSON object a line.

This is the one definition: dl-records(5) is checked against it. A field may be added at any time and a
reader ignores what it doesn't know; removing one or changing its meaning raises SCHEMA.
Source: design, the record stream.
"""

from __future__ import annotations

import os

from . import statuses
from .errors import Trouble

# `typing` and orjson would take longer than all the rest of a tool's start, and --help needs neither.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, ClassVar, Self

    import orjson
else:

    class _Orjson:
        """Imports orjson at its first use."""

        def __getattr__(self, name):
            global orjson
            import signal

            held = []
            before = {}
            try:
                # An exception in the middle of its initialisation, as a handler raises it, crashes the interpreter.
                for number in (signal.SIGINT, signal.SIGTERM):
                    before[number] = signal.signal(number, lambda number, frame: held.append(number))
            except ValueError:
                pass  # not the main thread, which is the one that handlers run in
            try:
                import orjson
            finally:
                for number, handler in before.items():
                    signal.signal(number, signal.SIG_DFL if handler is None else handler)
            for number in held:
                signal.raise_signal(number)
            return getattr(orjson, name)

    orjson = _Orjson()

SCHEMA = 1


class Field:
    """One field of a kind: its JSON type, whether it must be there, and what it means (with the unit)."""

    name = ""

    def __init__(self, type_name: str, meaning: str, *, required: bool = False) -> None:
        self.type_name, self.meaning, self.required = type_name, meaning, required

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, row: Record | None, owner: type) -> Any:
        if row is None:
            return self
        try:
            return row[self.name]
        except KeyError:
            if not self.required:
                return None
            raise Trouble(f"{row.get('type')} record without '{self.name}'", statuses.DATA) from None


def _need(type_name: str, meaning: str) -> Any:
    return Field(type_name, meaning, required=True)


def _may(type_name: str, meaning: str) -> Any:
    return Field(type_name, meaning)


class Record(dict):  # type: ignore[type-arg]
    """One line of a stream: a dict with attribute access to the fields that its kind declares.

    Reading an absent optional field gives None.
    Raises: Trouble (65) on reading a required field that is absent.
    """

    __slots__ = ()
    kind: ClassVar[str] = ""
    purpose: ClassVar[str] = ""

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """A record of this kind; fields that are None are left out."""
        return cls({"type": cls.kind, **{name: value for name, value in fields.items() if value is not None}})

    @classmethod
    def fields(cls) -> Iterator[Field]:
        """The fields that this kind declares, in order."""
        return (value for value in vars(cls).values() if isinstance(value, Field))


class Foreign(Record):
    """A record of a kind that the reader did not ask for: its `line` goes out as it came in."""

    __slots__ = ("line",)
    line: bytes


class Bundle(Record):
    __slots__ = ()
    kind, purpose = "bundle", "A job bundle that was read and checked: all that CreateJob needs but the attachments."
    path: str = _need("string", "folder of the bundle, absolute")
    template: str = _need("string", "text of the job template, as it will be sent")
    template_type: str = _need("string", "JSON or YAML")
    name: str | None = _may("string", "name of the job, format strings unresolved")
    farm_id: str | None = _may("string", "farm that the job is for")
    queue_id: str | None = _may("string", "queue that the job is for")
    queue_name: str | None = _may("string", "display name of the queue")
    parameters: dict[str, dict[str, str]] | None = _may("object", "CreateJob's parameters: name to {type: text}")
    priority: int | None = _may("integer", "0 to 100")
    max_failed_tasks_count: int | None = _may("integer", "failed tasks after which the job stops")
    max_retries_per_task: int | None = _may("integer", "attempts beyond the first")
    max_worker_count: int | None = _may("integer", "most workers at a time; -1: no limit")
    target_task_run_status: str | None = _may("string", "READY or SUSPENDED")
    storage_profile_id: str | None = _may("string", "storage profile of the submitting host")
    file_system: str | None = _may("string", "COPIED or VIRTUAL")
    s3_bucket_name: str | None = _may("string", "bucket of the queue's job attachments; absent: it takes none")
    root_prefix: str | None = _may("string", "root prefix of the queue's job attachments")
    file_count: int | None = _may("integer", "input files that follow")
    total_bytes: int | None = _may("integer", "bytes of the input files that follow")
    unknown_asset_paths: list[str] | None = _may("array", "input and output paths to ask a person about, absolute")
    known_asset_paths: list[str] | None = _may("array", "folders that files may come from without a question, absolute")


class Root(Record):
    __slots__ = ()
    kind, purpose = "root", "An asset root: the folder that paths of its files are relative to."
    root: str = _need("string", "the folder, absolute, spelt as the submitting host spells it")
    root_path_format: str = _need("string", "posix or windows")
    file_system_location_name: str | None = _may("string", "LOCAL location of the storage profile that holds it")


class File(Record):
    __slots__ = ()
    kind, purpose = "file", "A file: found, then hashed, then stored."
    path: str = _need("string", "relative to the root, with / between parts")
    root: str | None = _may("string", "the asset root, absolute; absent: the current folder")
    size: int | None = _may("integer", "bytes")
    mtime: int | None = _may("integer", "modification time, microseconds since the epoch, rounded down")
    hash: str | None = _may("string", "XXH3 128 of the content: 32 lower-case hex digits")
    hash_alg: str | None = _may("string", "xxh128")
    status: str | None = _may("string", "what dl-diff found: new, modified, deleted")
    upload: str | None = _may("string", "what dl-upload did: new (sent), present (was in the store), skipped")
    download: str | None = _may("string", "what dl-download or dl-sync did: new, present, skipped")
    local_path: str | None = _may("string", "where dl-download or dl-sync put it, absolute")
    job_id: str | None = _may("string", "job whose output it is (dl-sync)")
    task_id: str | None = _may("string", "task whose output it is (dl-sync)")


class OutputDir(Record):
    __slots__ = ()
    kind, purpose = "output_dir", "A folder that the job will write to; what appears there becomes output."
    root: str = _need("string", "the asset root, absolute")
    path: str = _need("string", "relative to the root, in the submitting host's spelling; '.' is the root")


class Manifest(Record):
    __slots__ = ()
    kind, purpose = "manifest", "An asset manifest (v2023-03-03) that was written, stored or found."
    root: str | None = _may("string", "the asset root, absolute")
    root_path_format: str | None = _may("string", "posix or windows")
    file_system_location_name: str | None = _may("string", "as in the root record")
    path: str | None = _may("string", "local file that holds it, absolute")
    hash: str | None = _may("string", "XXH3 128 of the manifest's bytes")
    hash_alg: str | None = _may("string", "xxh128")
    size: int | None = _may("integer", "bytes of the manifest itself")
    total_size: int | None = _may("integer", "bytes of all files in it")
    file_count: int | None = _may("integer", "files in it")
    manifest_path: str | None = _may("string", "key in the store below <root prefix>/Manifests/")
    output: bool | None = _may("boolean", "true: outputs of a task; absent or false: inputs of a job")


class Object(Record):
    __slots__ = ()
    kind, purpose = "object", "An object of the store that was looked at, or one that is missing there."
    key: str = _need("string", "its key in the bucket")
    status: str = _need("string", "what was found: of dl-verify good, damaged, missing, ...; of dl-gc unreached, ...")
    hash: str | None = _may("string", "the hash that its name promises, or the manifest's bytes have")
    found_hash: str | None = _may("string", "what its content hashes to, where that differs")
    size: int | None = _may("integer", "its bytes")
    expected_size: int | None = _may("integer", "the bytes that a manifest says it has, where that differs")
    modified: str | None = _may("string", "RFC 3339, UTC; when it was stored, or an upload was begun")
    upload_id: str | None = _may("string", "of an unfinished multipart upload")
    manifest_path: str | None = _may("string", "a manifest that needs it: key below <root prefix>/Manifests/")
    path: str | None = _may("string", "a file of that manifest that it is the content of")
    reason: str | None = _may("string", "why it has that status, for a person")


class Job(Record):
    __slots__ = ()
    kind, purpose = "job", "A job, as created or as last seen."
    job_id: str = _need("string", "job-<32 hex>")
    farm_id: str | None = _may("string", "farm-<32 hex>")
    queue_id: str | None = _may("string", "queue-<32 hex>")
    name: str | None = _may("string", "name, format strings resolved")
    lifecycle_status: str | None = _may("string", "CREATE_IN_PROGRESS, CREATE_COMPLETE, ...")
    lifecycle_status_message: str | None = _may("string", "what the service says about it")
    task_run_status: str | None = _may("string", "READY, RUNNING, SUCCEEDED, FAILED, ...")
    task_run_status_counts: dict[str, int] | None = _may("object", "status to number of tasks")
    started_at: str | None = _may("string", "RFC 3339, UTC")
    ended_at: str | None = _may("string", "RFC 3339, UTC")
    elapsed_s: float | None = _may("number", "seconds that dl-wait waited")
    change: str | None = _may("string", "what dl-sync found it to be: added, updated, completed, ...")
    download_status: str | None = _may("string", "of its output (dl-sync): downloaded, in_progress, failed, skipped")
    skip_reason: str | None = _may("string", "of download_status skipped: no_attachments, missing_storage_profile")


class Step(Record):
    __slots__ = ()
    kind, purpose = "step", "A step of a job."
    step_id: str = _need("string", "step-<32 hex>")
    job_id: str | None = _may("string", "its job")
    name: str | None = _may("string", "its name in the template")
    task_run_status: str | None = _may("string", "derived from its tasks")
    task_run_status_counts: dict[str, int] | None = _may("object", "status to number of tasks")


class Task(Record):
    __slots__ = ()
    kind, purpose = "task", "A task of a step."
    task_id: str = _need("string", "task-<32 hex>-<n>")
    step_id: str | None = _may("string", "its step")
    job_id: str | None = _may("string", "its job")
    step_name: str | None = _may("string", "name of its step")
    run_status: str | None = _may("string", "READY, RUNNING, SUCCEEDED, FAILED, ...")
    parameters: dict[str, dict[str, str]] | None = _may("object", "task parameters: name to {type: text}")
    session_id: str | None = _may("string", "session of its latest attempt")
    failure_retry_count: int | None = _may("integer", "failed attempts so far")


class Session(Record):
    __slots__ = ()
    kind, purpose = "session", "A session: one worker running actions of one job."
    session_id: str = _need("string", "session-<32 hex>")
    job_id: str | None = _may("string", "its job")
    fleet_id: str | None = _may("string", "fleet of the worker")
    worker_id: str | None = _may("string", "worker that runs it")
    lifecycle_status: str | None = _may("string", "STARTED, ENDED, ...")
    started_at: str | None = _may("string", "RFC 3339, UTC")
    ended_at: str | None = _may("string", "RFC 3339, UTC; absent while open")
    log_group: str | None = _may("string", "CloudWatch Logs group of its log")
    log_stream: str | None = _may("string", "CloudWatch Logs stream of its log")
    action_started_at: str | None = _may("string", "RFC 3339, UTC; of the one action whose lines follow")
    action_ended_at: str | None = _may("string", "RFC 3339, UTC; absent while it runs")


class Action(Record):
    __slots__ = ()
    kind, purpose = "action", "A session action: one thing that a session does, and how far it is."
    session_action_id: str = _need("string", "sessionaction-<32 hex>-<n>")
    session_id: str | None = _may("string", "its session")
    status: str | None = _may("string", "ASSIGNED, RUNNING, SUCCEEDED, FAILED, ...")
    definition: dict[str, Any] | None = _may("object", "envEnter, envExit, taskRun or syncInputJobAttachments")
    started_at: str | None = _may("string", "RFC 3339, UTC")
    ended_at: str | None = _may("string", "RFC 3339, UTC")
    updated_at: str | None = _may("string", "RFC 3339, UTC; of a report while it runs")
    progress_percent: float | None = _may("number", "0 to 100")
    progress_message: str | None = _may("string", "the job's own status or failure text")
    process_exit_code: int | None = _may("integer", "of the action's process")
    manifests: list[dict[str, str]] | None = _may("array", "output manifests, in the order of the job's manifests")


class Log(Record):
    __slots__ = ()
    kind, purpose = "log", "A line of a log."
    timestamp: str = _need("string", "RFC 3339, UTC, milliseconds")
    ingestion_time: str | None = _may("string", "RFC 3339, UTC, milliseconds; when it was stored")
    message: str = _need("string", "the line, without its end")
    log_group: str | None = _may("string", "CloudWatch Logs group")
    log_stream: str | None = _may("string", "CloudWatch Logs stream: the session or worker id")


class Resource(Record):
    __slots__ = ()
    kind, purpose = "resource", "A farm, queue, fleet, worker, job, step, task, session, ... as the service tells it."
    resource: str = _need("string", "what it is: farm, queue, fleet, worker, job, step, task, session, ...")
    id: str = _need("string", "its id")
    name: str | None = _may("string", "its name, where it has one")
    status: str | None = _may("string", "its status, where it has one")
    farm_id: str | None = _may("string", "farm that it is in")
    queue_id: str | None = _may("string", "queue that it is in")
    data: dict[str, Any] = _need("object", "the service's own answer, with its member names; times are RFC 3339")


class Credentials(Record):
    __slots__ = ()
    kind, purpose = "credentials", "AWS credentials; never written to a terminal by default."
    access_key_id: str = _need("string", "access key id")
    secret_access_key: str = _need("string", "secret access key")
    session_token: str | None = _may("string", "session token of temporary credentials")
    expiration: str | None = _may("string", "RFC 3339, UTC; absent: they don't expire")


class Progress(Record):
    __slots__ = ()
    kind, purpose = "progress", "How far a tool is; on standard error, with --progress json."
    tool: str = _need("string", "the tool")
    message: str | None = _may("string", "what it is doing")
    done_bytes: int | None = _may("integer", "bytes done")
    total_bytes: int | None = _may("integer", "bytes known so far; grows while the stream comes in")
    done_count: int | None = _may("integer", "files, objects or tasks done")
    total_count: int | None = _may("integer", "files, objects or tasks known so far")
    skipped_bytes: int | None = _may("integer", "bytes that needed no transfer; part of done_bytes")
    bytes_per_s: float | None = _may("number", "rate, smoothed")
    eta_s: float | None = _may("number", "seconds left at that rate")


class Error(Record):
    __slots__ = ()
    kind, purpose = "error", "What failed; on standard error, with --progress json."
    tool: str = _need("string", "the tool")
    message: str = _need("string", "one line: what failed, on what, what to do")
    status: int | None = _may("integer", "the exit status it leads to; absent: a warning")
    path: str | None = _may("string", "the file concerned")
    code: str | None = _may("string", "the service's error code")


class End(Record):
    __slots__ = ()
    kind, purpose = "end", "Ends a stream. Without one, or with ok false, the stream is not whole."
    tool: str = _need("string", "the tool that wrote the stream")
    ok: bool = _need("boolean", "whether all went well")
    records: int | None = _may("integer", "records written before this one")
    status: int | None = _may("integer", "the tool's exit status, where it is not 0")


KINDS: dict[str, type[Record]] = {
    kind.kind: kind
    for kind in (
        Bundle, Root, File, OutputDir, Manifest, Object, Job, Step, Task, Session, Action, Log, Resource, Credentials,
        Progress, Error, End,
    )
}  # fmt: skip


def encode(row: Record) -> bytes:
    """The line of a record, newline included.

    A string that is no UTF-8 (a file name, as os.fsdecode gives it) goes out twice: readable under its own
    name, with U+FFFD for the bytes in question, and exact under <name>_b64.
    """
    if isinstance(row, Foreign):
        return row.line
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        safe: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, str) and not _is_unicode(value):
                from base64 import b64encode

                try:
                    raw = os.fsencode(value)
                except UnicodeEncodeError:  # no file's name, but a word of some manifest
                    raw = value.encode("utf-8", "surrogatepass")
                safe[name] = raw.decode("utf-8", "replace")
                safe[f"{name}_b64"] = b64encode(raw).decode()
            else:
                safe[name] = value
        return orjson.dumps(safe, option=orjson.OPT_APPEND_NEWLINE)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode(line: bytes) -> Record:
    """The record of a line, of the class of its kind; a kind that is not ours is a plain Record.

    Raises: Trouble (65) if the line is no JSON object with a string `type`.
    """
    try:
        fields = orjson.loads(line)
        row = KINDS.get(fields["type"] + "", Record)(fields)
        if b'_b64"' in line:
            from base64 import b64decode

            for name in [name for name in row if name.endswith("_b64") and name[:-4] in row]:
                row[name[:-4]] = os.fsdecode(b64decode(row.pop(name), validate=True))
    except (ValueError, TypeError, KeyError, AttributeError):
        shown = line[:80].decode("utf-8", "replace").rstrip()
        raise Trouble(f"not a record: '{shown}'", statuses.DATA) from None
    return row
