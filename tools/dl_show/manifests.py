"""Views of manifests, and of what was uploaded and downloaded by them."""

from __future__ import annotations

import json
import os
from typing import Any

from libdeadline import statuses
from libdeadline.records import File, Manifest

from .view import View, is_terminal

STATUSES = ("new", "modified", "deleted")
MARKS = {"new": " +", "modified": " M", "deleted": " -"}
COLOURS = {"new": "\033[92m", "modified": "\033[93m", "deleted": "\033[91m"}
PLAIN = "\033[0m"


def snapshot_view(view: View) -> int:
    """The manifest that was made of a folder, if any."""
    made = [row for row in view.input if isinstance(row, Manifest)]
    for row in made:
        if view.json:
            view.print(json.dumps({"root": view.args["--root"] or row.root, "manifest": row.path}))
        else:
            view.print(f"Manifest generated at {row.path}")
    if not made and not view.json:
        view.print("No manifest generated")
    return statuses.OK


def manifest_diff_view(view: View) -> int:
    """The files that differ from a manifest: by status, or as a tree."""
    found: dict[str, list[str]] = {status: [] for status in STATUSES}
    for row in view.input:
        if isinstance(row, File) and row.status in found:
            found[row.status].append(row.path)
    if view.json:
        view.print(json.dumps({status: sorted(paths) for status, paths in found.items()}, indent=4))
        return statuses.OK
    view.print(f"Manifest Diff of root directory: {view.args['--root'] or '.'}")
    tree: dict[str, Any] = {}
    for status, paths in found.items():
        for path in paths:
            *folders, name = path.split("/")
            here = tree
            for folder in folders:
                here = here.setdefault(folder + "/", {})
            here[name] = status
    _print_tree(view, tree, colours=is_terminal())
    return statuses.OK


def _print_tree(view: View, tree: dict[str, Any], *, colours: bool) -> None:
    if not tree:
        view.print("No differences")
        return
    # Not by recursion: how deep folders lie is not up to us.
    levels = [("", iter(sorted(tree.items())), len(tree))]
    while levels:
        prefix, entries, left = levels.pop()
        name, below = next(entries)
        if left > 1:
            levels.append((prefix, entries, left - 1))
        branch, indent = ("├──", "│    ") if left > 1 else ("└──", "     ")
        if isinstance(below, dict):
            view.print(f"{prefix}{branch}{name.removesuffix('/')}{os.sep}")
            levels.append((prefix + indent, iter(sorted(below.items())), len(below)))
        else:
            text = name + MARKS[below]
            view.print(f"{prefix}{branch}{COLOURS[below]}{text}{PLAIN}" if colours else f"{prefix}{branch}{text}")


def manifest_upload_view(view: View) -> int:
    """Where manifests were uploaded to."""
    stored = []
    for row in view.input:
        if isinstance(row, Manifest):
            stored.append({"local_manifest_path": row.path, "s3_manifest_path": row.manifest_path})
            if not view.json:
                view.print(f"Uploaded manifest {row.path} to Manifests/{row.manifest_path}")
    if view.json:
        view.print(json.dumps({"uploaded": stored}))
    return statuses.OK


def manifest_download_view(view: View) -> int:
    """The merged manifests of a job that were written, root by root."""
    # Those without a local file are the job's own, which passed through.
    made = [row for row in view.input if isinstance(row, Manifest) and row.path]
    if view.json:
        downloaded = [{"manifest_root": row.root, "local_manifest_path": row.path} for row in made]
        view.print(json.dumps({"downloaded": downloaded}))
        return statuses.OK
    for row in made:
        view.print(f"Downloaded merged manifest for root: {row.root} to: {row.path}")
    if not made:
        view.print("There are no manifests to download.")
    return statuses.OK


def attachment_upload_view(view: View) -> int:
    """How many files of manifests were uploaded, and where the manifests went."""
    return _transfer(view, "upload", "Upload")


def attachment_download_view(view: View) -> int:
    """How many files of manifests were downloaded."""
    return _transfer(view, "download", "Download")


def _transfer(view: View, field: str, title: str) -> int:
    from time import monotonic

    from libdeadline.progress import size_text

    began = monotonic()
    files = {True: 0, False: 0}  # by whether they were transferred
    sizes = {True: 0, False: 0}
    stored: list[Manifest] = []
    for row in view.input:
        if isinstance(row, File):
            transferred = row.get(field, "new") == "new"
            files[transferred] += 1
            sizes[transferred] += row.size or 0
        elif isinstance(row, Manifest) and field == "upload" and row.manifest_path:
            stored.append(row)
    seconds = max(monotonic() - began, 1e-5)
    rate = sizes[True] / seconds
    if view.json:
        summary = {
            "total_time": round(seconds, 5),
            "total_files": files[True] + files[False],
            "total_bytes": sizes[True] + sizes[False],
            "processed_files": files[True],
            "processed_bytes": sizes[True],
            "skipped_files": files[False],
            "skipped_bytes": sizes[False],
            "transfer_rate": rate,
        }
        view.print(json.dumps(summary))
        return statuses.OK
    view.print(f"{title} Summary:")
    view.print(f"    Processed {_files(files[True])} totaling {size_text(sizes[True])}.")
    if files[False]:
        view.print(f"    Skipped re-processing {_files(files[False])} totaling {size_text(sizes[False])}.")
    view.print(f"    Total processing time of {round(seconds, 5)} seconds at {size_text(rate)}/s.")
    for each in stored:
        view.print(f"Uploaded manifest {each.path} to Manifests/{each.manifest_path}")
    return statuses.OK


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"
