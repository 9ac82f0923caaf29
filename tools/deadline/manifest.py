"""Commands of the group manifest."""

import json
import os
from typing import Any

from libdeadline import statuses
from libdeadline.command import Arguments
from libdeadline.errors import Trouble

from .options import given, job_of, reach
from .pipeline import Shell, Stage

# What the reference's globs are about: files alone, dots only where they are spelled, through links to folders.
WALK = ("--no-hidden", "--exact-globs", "--links=follow")


def snapshot(options: Arguments, shell: Shell) -> int:
    """deadline manifest snapshot - make a manifest of the files in a folder

    Usage: deadline manifest snapshot [options]

    Options:
      --root=<dir>              The folder.
      -d, --destination=<dir>   Folder to write the manifest to, else the root.
      -n, --name=<name>         Beginning of the manifest's name, else the root.
      -i, --include=<glob>...   Only files that match; may be repeated. Globs are relative to the root, and
                                match a leading dot only where they spell it.
      -e, --exclude=<glob>...   No files that match; may be repeated.
      -ie, --include-exclude-config=<json>...  Both, as JSON with the fields include and exclude, or a file of
                                it; for when neither is given.
      --force-rehash            Read every file, whatever the hash cache knows.
      --diff=<manifest>         Only files that are new or modified against this manifest: by size and time, or
                                by content with --force-rehash.
      --json                    Print the result as JSON.
    """
    if not options["--root"]:
        raise Trouble("which folder? give --root", statuses.USAGE)
    root = _folder(options["--root"], "root")
    to = _folder(options["--destination"], "destination") if options["--destination"] else root
    walk, rehash, diff = _walk(options), given(options, "--force-rehash"), options["--diff"]
    # A snapshot is of what is there: what goes away meanwhile is told, and is no failure.
    hashing = ["dl-hash", *(["--rehash"] if rehash else []), "--missing=warn"]
    stages: list[Stage] = [[*hashing, *walk, "--", root]]
    if diff:
        _file(diff)
        compare = ["dl-diff", "--only=new,modified"]
        if rehash:
            stages.append([*compare, *walk, "--", diff])
        else:
            stages = [[*compare, *walk, "--", diff, root], hashing]
    return shell.run(
        *stages,
        ["dl-manifest", f"--to={to}", *given(options, "--name"), f"--root-as={root}"],
        ["dl-show", _output(options), f"--root={root}", "snapshot"],
        answering="dl-diff",
    )


def diff(options: Arguments, shell: Shell) -> int:
    """deadline manifest diff - tell how a folder differs from a manifest

    Usage: deadline manifest diff [options]

    Options:
      --root=<dir>              The folder, else the current one.
      --manifest=<manifest>     The manifest.
      -i, --include=<glob>...   Compare only files that match; may be repeated. Globs are relative to the root,
                                and match a leading dot only where they spell it.
      -e, --exclude=<glob>...   Do not compare files that match; may be repeated.
      -ie, --include-exclude-config=<json>...  Both, as JSON with the fields include and exclude, or a file of
                                it; for when neither is given.
      --force-rehash            Compare by content, not by size and time.
      --json                    Print the result as JSON.
    """
    if not options["--manifest"]:
        raise Trouble("which manifest? give --manifest", statuses.USAGE)
    name = _file(options["--manifest"])
    root = _folder(options["--root"] or ".", "root")
    walk = _walk(options)
    if options["--force-rehash"]:
        look: list[Stage] = [
            ["dl-hash", "--rehash", "--missing=warn", *walk, "--", root],
            ["dl-diff", *walk, "--", name],
        ]
    else:
        look = [["dl-diff", *walk, "--", name, root]]
    show = ["dl-show", _output(options), f"--root={root}", "manifest-diff"]
    return shell.run(*look, show, answering="dl-diff")


def upload(options: Arguments, shell: Shell) -> int:
    """deadline manifest upload - upload a manifest, without the files in it

    Usage: deadline manifest upload [options] <manifest-file>

    Options:
      --profile=<name>             AWS profile to use.
      --s3-cas-uri=<uri>           Store to upload to, s3://bucket/prefix, in place of a queue's.
      --s3-manifest-prefix=<key>   Prefix of its key below Manifests/.
      --farm-id=<id>               Farm of the queue.
      --queue-id=<id>              Queue whose store to use, else the default queue.
      --region=<name>              AWS region of the farm.
      --json                       Print the result as JSON.
    """
    return shell.run(
        ["dl-manifest", "stat", "--", _file(options["<manifest-file>"])],
        ["dl-upload", *store(options, "--s3-cas-uri"), f"--manifest-prefix={options['--s3-manifest-prefix'] or ''}"],
        ["dl-show", _output(options), "manifest-upload"],
    )


def download(options: Arguments, shell: Shell) -> int:
    """deadline manifest download - download the manifests of a job, merged root by root

    Usage: deadline manifest download [options] <download-dir>

    Options:
      --profile=<name>      AWS profile to use.
      --farm-id=<id>        Farm of the queue.
      --queue-id=<id>       Queue of the job.
      --region=<name>       AWS region of the farm.
      --job-id=<id>         The job, else the default job.
      --step-id=<id>        Only what this step reads, with the output of the steps that it depends on, and writes.
      --asset-type=<which>  input, output or all [default: all].
      --json                Print the result as JSON.
    """
    assets = options.choice("--asset-type", ("input", "output", "all"))
    to = _folder(options["<download-dir>"], "download folder")
    return shell.run(
        ["dl-download", "--list", f"--assets={assets}", *reach(options), *given(options, "--step-id"), job_of(options)],
        ["dl-manifest", f"--to={to}"],
        ["dl-show", _output(options), "manifest-download"],
    )


def store(options: Arguments, name: str) -> list[str]:
    """The options that say which store to use: a URI, under the name that `options` has it by, or a queue's."""
    uri = options[name]
    return [
        *given(options, "--profile", "--region", "--farm-id", "--queue-id"),
        *([f"--s3-root-uri={uri}"] if uri else []),
    ]


def _output(options: Arguments) -> str:
    return f"--output={'json' if options['--json'] else 'verbose'}"


def _folder(path: str, what: str) -> str:
    if not os.path.isdir(path):
        raise Trouble(f"the {what} '{path}' is not a folder", statuses.NO_INPUT, path=path)
    return path


def _file(path: str) -> str:
    if not os.path.isfile(path):
        raise Trouble(f"there is no manifest file '{path}'", statuses.NO_INPUT, path=path)
    return path


def _walk(options: Arguments) -> list[str]:
    """The options of dl-hash and dl-diff that choose files."""
    globs: dict[str, list[str]] = {"include": options["--include"], "exclude": options["--exclude"]}
    if not globs["include"] and not globs["exclude"]:
        for text in options["--include-exclude-config"]:
            config = _config(text)
            for field, listed in globs.items():
                globs[field] = [*listed, *config[field]]
    return [*WALK, *(f"--{field}={glob}" for field, listed in globs.items() for glob in listed)]


def _config(text: str) -> dict[str, list[str]]:
    """What --include-exclude-config says: JSON, or a file that holds it.

    Raises: Trouble (65).
    """
    content: str | bytes = text
    if os.path.isfile(text):
        with open(text, "rb") as file:
            content = file.read()
    try:
        config: Any = json.loads(content)
    except ValueError as error:
        raise Trouble(f"'{text}' is neither a file nor JSON: {error}", statuses.DATA) from None
    found = {}
    for field in ("include", "exclude"):
        globs = config.get(field, []) if isinstance(config, dict) else None
        if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
            raise Trouble(f'globs are an object like {{"include": ["**/*"], "exclude": []}}, not {text}', statuses.DATA)
        found[field] = globs
    return found


COMMANDS = {"snapshot": snapshot, "diff": diff, "upload": upload, "download": download}
