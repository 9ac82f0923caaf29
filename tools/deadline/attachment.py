"""Commands of the group attachment."""

import os

from libdeadline import statuses
from libdeadline.command import Arguments
from libdeadline.errors import Trouble

from .manifest import store
from .options import given
from .pipeline import Shell


def upload(options: Arguments, shell: Shell) -> int:
    """deadline attachment upload - upload the files of manifests

    Usage: deadline attachment upload [options]

    Options:
      -m, --manifests=<manifest>...  A manifest, whose name holds the hash of its root, as manifest snapshot
                                     writes it; may be repeated.
      -r, --root-dirs=<dir>...       A root, spelled as it was then; may be repeated.
      --path-mapping-rules=<file>    The roots, and where their files lie on this host, as path mapping rules.
      --s3-root-uri=<uri>            Store to upload to, s3://bucket/prefix, in place of a queue's.
      --upload-manifest-path=<key>   Upload the manifests, too: below Manifests/ and this key.
      --profile=<name>               AWS profile to use.
      --farm-id=<id>                 Farm of the queue.
      --queue-id=<id>                Queue whose store to use, else the default queue.
      --region=<name>                AWS region of the farm.
      --json                         Print the result as JSON.
    """
    manifests = _manifests(options)
    if bool(options["--root-dirs"]) == bool(options["--path-mapping-rules"]):
        raise Trouble(
            "whose files are those of the manifests? give --root-dirs or --path-mapping-rules", statuses.USAGE
        )
    for root in options["--root-dirs"]:
        if not os.path.isdir(root):
            raise Trouble(f"the root '{root}' is not a folder", statuses.NO_INPUT, path=root)
    prefix, rules = options["--upload-manifest-path"], given(options, "--path-mapping-rules")
    with_manifests = prefix is not None
    return shell.run(
        [
            "dl-manifest",
            "cat",
            *(["--manifests"] if with_manifests else []),
            *(f"--among={root}" for root in options["--root-dirs"]),
            *rules,
            "--",
            *manifests,
        ],
        [
            "dl-upload",
            *store(options, "--s3-root-uri"),
            *rules,
            *([f"--manifest-prefix={prefix}"] if with_manifests else []),
        ],
        ["dl-show", f"--output={'json' if options['--json'] else 'verbose'}", "attachment-upload"],
    )


def download(options: Arguments, shell: Shell) -> int:
    """deadline attachment download - download the files of manifests

    Usage: deadline attachment download [options]

    Options:
      -m, --manifests=<manifest>...  A manifest, whose name holds the hash of its root, as manifest snapshot
                                     writes it; may be repeated.
      --path-mapping-rules=<file>    Where the files of roots go, as path mapping rules; those of other roots
                                     go into a folder of the manifest's name below the current folder.
      --conflict-resolution=<how>    Where a file exists that differs: skip, overwrite or
                                     create_copy; else the setting, else create_copy.
      --s3-root-uri=<uri>            Store to download from, s3://bucket/prefix, in place of a queue's.
      --profile=<name>               AWS profile to use.
      --farm-id=<id>                 Farm of the queue.
      --queue-id=<id>                Queue whose store to use, else the default queue.
      --region=<name>                AWS region of the farm.
      --json                         Print the result as JSON.
    """
    options.choice("--conflict-resolution", ("SKIP", "OVERWRITE", "CREATE_COPY"))
    manifests = _manifests(options)
    if options["--path-mapping-rules"] and len(manifests) > 1:
        _refuse_shared(manifests, options["--path-mapping-rules"])
    return shell.run(
        [
            "dl-download",
            *store(options, "--s3-root-uri"),
            *given(options, "--path-mapping-rules", "--conflict-resolution"),
            "--below=.",
            *(f"--manifest={name}" for name in manifests),
        ],
        ["dl-show", f"--output={'json' if options['--json'] else 'verbose'}", "attachment-download"],
    )


def _manifests(options: Arguments) -> list[str]:
    """The manifests that were named.

    Raises: Trouble (64, 66).
    """
    if not options["--manifests"]:
        raise Trouble("which manifests? give --manifests", statuses.USAGE)
    for name in options["--manifests"]:
        if not os.path.isfile(name):
            raise Trouble(f"there is no manifest file '{name}'", statuses.NO_INPUT, path=name)
    return list(options["--manifests"])


def _refuse_shared(manifests: list[str], rules_file: str) -> None:
    """See that no two manifests go to one place, which dl-download would take for later states of one root.

    Raises: Trouble (64).
    """
    from libdeadline import path_mapping
    from libdeadline.paths import root_hash

    taken: dict[str, str] = {}
    rules = path_mapping.read(rules_file)
    for name in manifests:
        rule = next((rule for rule in rules if root_hash(rule.source_path) in os.path.basename(name)), None)
        if rule is None:
            continue
        other = taken.setdefault(rule.destination_path, name)
        if other != name:
            raise Trouble(
                f"the files of '{other}' and '{name}' would both go to '{rule.destination_path}': merge the manifests "
                f"with dl-manifest merge, or download them one after the other",
                statuses.USAGE,
            )


COMMANDS = {"upload": upload, "download": download}
