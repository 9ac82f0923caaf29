"""Views of what was downloaded."""

from __future__ import annotations

from typing import Any

from libdeadline import statuses
from libdeadline.errors import Trouble
from libdeadline.records import File, Job

from .view import View


def download_output_view(view: View) -> int:
    """The output files that were downloaded, under the name of their job."""
    return _download(view, "output")


def download_input_view(view: View) -> int:
    """The input files that were downloaded, under the name of their job."""
    return _download(view, "input")


def download_summary_view(view: View) -> int:
    """The files that were downloaded."""
    return _download(view, None)


def _download(view: View, what: str | None) -> int:
    import json
    import os
    from time import monotonic

    from libdeadline.progress import size_text

    began = monotonic()
    paths: list[str] = []
    folders: dict[str, int] = {}
    outcomes = {"new": 0, "present": 0, "skipped": 0}
    size = 0
    for row in view.input:
        if isinstance(row, Job) and what:
            name = row.name or row.job_id
            title = {"messageType": "title", "value": name}
            view.print(json.dumps(title) if view.json else f"Downloading {what} from Job {name!r}\n")
        elif isinstance(row, File):
            local = row.local_path or os.path.join(row.root or "", row.path)
            outcome = row.download or "new"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if outcome != "skipped":
                # A root that files were moved from is told of by where they are now.
                ending = os.sep + row.path.replace("/", os.sep)
                folder = local.removesuffix(ending) if local.endswith(ending) else os.path.dirname(local)
                folders[folder] = folders.get(folder, 0) + 1
                size += row.size or 0
                if view.json:
                    paths.append(local)
    count = outcomes["new"] + outcomes["present"]
    if view.json and not count and not outcomes["skipped"]:
        view.print(json.dumps({"messageType": "summary", "value": "There are no files to download."}) + "\n")
        return statuses.OK
    if view.json:
        told = f"Downloaded {count} files"
        view.print(
            json.dumps({"messageType": "summary", "value": told, "fileCount": count, "files": sorted(paths)}) + "\n"
        )
        return statuses.OK
    if not count and not outcomes["skipped"]:
        view.print("There are no files to download.")
        return statuses.OK
    seconds = max(monotonic() - began, 1e-5)
    view.print(f"Download Summary:\n    Downloaded {_files(count)} totaling {size_text(size)}.")
    if outcomes["present"]:
        view.print(f"    Of these, {outcomes['present']} were here already.")
    if outcomes["skipped"]:
        view.print(f"    Skipped {_files(outcomes['skipped'])}.")
    view.print(f"    Total download time of {round(seconds, 5)} seconds at {size_text(size / seconds)}/s.")
    view.print("    Download locations (total file counts):")
    for folder, number in folders.items():
        view.print(f"        {folder} ({_files(number)})")
    view.print()
    return statuses.OK


def sync_output_view(view: View) -> int:
    """The output of a queue's jobs, job by job as it comes, and how much it was."""
    import json

    listed: list[dict[str, Any]] = []
    files: dict[str, int] = {}
    trouble: Trouble | None = None
    try:
        for row in view.input:
            if isinstance(row, File) and row.job_id:
                files[row.job_id] = files.get(row.job_id, 0) + 1
            elif isinstance(row, Job):
                count = files.pop(row.job_id, 0)
                listed.append({"jobId": row.job_id, "name": row.name, "change": row.change, "files": count})
                listed[-1]["downloadStatus"] = row.download_status
                if not view.json:
                    reason = f" ({row.skip_reason})" if row.skip_reason else ""
                    view.print(
                        f"{row.name or row.job_id} ({row.job_id}): {row.download_status}{reason}, {_files(count)}"
                    )
                    listed.clear()
    except Trouble as error:
        if view.input.end is None or "session_actions" not in view.input.end:
            raise  # it did not come to looking
        trouble = error  # some of it failed: that is part of the summary
    counted = view.counted
    dry_run = bool(counted("dry_run"))
    fetched, size = counted("new") + counted("present") + counted("files"), 0
    for each in ("new_bytes", "present_bytes", "bytes"):
        size += counted(each)
    with_downloads = {each: counted(f"jobs_{each}") for each in ("completed", "added", "updated")}
    without = {
        "not using job attachments": counted("jobs_without_attachments"),
        "missing storage profile": counted("jobs_without_storage_profile"),
        "unchanged": counted("jobs_unchanged"),
        "inactive": counted("jobs_inactive"),
    }
    if view.json:
        summary = {
            "status": "failed" if trouble else "success",
            "dryRun": dry_run,
            "sessionActions": counted("session_actions"),
            "files": fetched,
            "bytes": size,
            "presentFiles": counted("present"),
            "skippedFiles": counted("skipped"),
            "failedFiles": counted("failed"),
            "unmappedFiles": counted("left_out"),
            "jobsWithDownloads": with_downloads,
            "jobsWithoutDownloads": {
                "notUsingJobAttachments": without["not using job attachments"],
                "missingStorageProfile": without["missing storage profile"],
                "unchanged": without["unchanged"],
                "inactive": without["inactive"],
            },
            "jobs": listed,
        }
        view.print(json.dumps(summary))
    else:
        _print_sync_summary(view, dry_run, fetched, size, with_downloads, without)
    if trouble:
        raise trouble
    return statuses.OK


def _print_sync_summary(
    view: View, dry_run: bool, fetched: int, size: int, with_downloads: dict[str, int], without: dict[str, int]
) -> None:
    from libdeadline.progress import size_text

    what = "Summary of incremental output download:"
    if dry_run:
        what = "Summary of DRY RUN for incremental output download (no files were downloaded to the file system):"
    view.print(f"\n{what}\n  Downloaded session actions: {view.counted('session_actions')}")
    view.print(f"  Downloaded files: {fetched}\n  Downloaded bytes: {size_text(size)}")
    for name, title in (("present", "here already"), ("skipped", "skipped"), ("failed", "failed")):
        if view.counted(name):
            view.print(f"  Files {title}: {view.counted(name)}")
    if view.counted("left_out"):
        view.print(f"  Files without a place on this host: {view.counted('left_out')}")
    for title, counts in (("with", with_downloads), ("without", without)):
        view.print(f"  Jobs {title} downloads:")
        for name, count in counts.items():
            view.print(f"    {name}: {count}")
    view.print("This is a DRY RUN so the checkpoint was not saved" if dry_run else "Checkpoint saved")


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"
