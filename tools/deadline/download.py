"""Downloads of a job's files: the dialogue with a person or a program, around one pipeline.

    look:   dl-download --dry-run ...                        what there is, read by us
    ask:    where roots go, what to do about files that exist
    fetch:  dl-download --map=... ... | dl-show download-... what is printed and can be pasted

Where nothing is to be asked, a person's download is the last line alone.
Source: client specification, downloads; attachments specification, downloading job files.
"""

import json
import os
import sys

from libdeadline import statuses
from libdeadline.command import Arguments
from libdeadline.errors import Trouble

from .options import accepts_all, given, job_of, output_form, reach
from .pipeline import Listener, Shell, Stage

CONFLICTS = {"1": "SKIP", "2": "OVERWRITE", "3": "CREATE_COPY"}
SHOWN_CONFLICTS = 20
NOTHING = {
    "output": "There are no output files to download. Output exists once a task of the job has succeeded.",
    "input": "There are no input files to download.",
}


class Found:
    """What a look at the job brought: its name, and the files of each root."""

    def __init__(self) -> None:
        self.title = ""
        self.roots: dict[str, list[str]] = {}
        self.local: dict[str, list[str]] = {}
        self.formats: dict[str, str] = {}
        self.mapped = False

    def read(self, lines: bytes) -> None:
        """Take in the records of dl-download --dry-run."""
        for line in lines.splitlines():
            row = json.loads(line)
            if row["type"] == "job":
                self.title = row.get("name") or row["job_id"]
            elif row["type"] == "manifest":
                self.formats[row["root"]] = row["root_path_format"]
            elif row["type"] == "file":
                self.roots.setdefault(row["root"], []).append(row["path"])
                self.local.setdefault(row["root"], []).append(row["local_path"])
                self.mapped = self.mapped or row["local_path"] != os.path.join(row["root"], row["path"])


class Download:
    """One download."""

    def __init__(self, options: Arguments, shell: Shell, what: str) -> None:
        self.options, self.shell, self.what = options, shell, what
        self.json = output_form(options) == "json"
        self.silent = accepts_all(options)
        self.maps: dict[str, str] = {}
        side = options.choice("--match-paths-by", ("job", "local")) or "local"
        words = given(options, "--step-id", "--task-id", "--include", "--ignore-storage-profiles")
        self.words = [*reach(options), *words, *([f"--match-paths-by={side}"] if options["--include"] else [])]
        self.words += ["--input"] if what == "input" else []
        self.conflict = options.choice("--conflict-resolution", ("SKIP", "OVERWRITE", "CREATE_COPY"))
        if options.get("--task-id") and not options["--step-id"]:
            raise Trouble("--task-id needs --step-id as well", statuses.USAGE)
        self.job_id = job_of(options)

    def stage(self, *more: str) -> Stage:
        """The stage that fetches, or looks with --dry-run."""
        maps = [f"--map={old}={new}" for old, new in self.maps.items()]
        conflict = [f"--conflict-resolution={self.conflict}"] if self.conflict else []
        return ["dl-download", *self.words, *maps, *conflict, *more, self.job_id]

    def fetch(self, view: str) -> int:
        """Fetch the files, and print what came of it."""
        show = ["dl-show", f"--output={'json' if self.json else 'verbose'}", view]
        if not self.json or self.shell.dry:
            return self.shell.run(self.stage(), show)
        # The summary must come after all progress, which reaches us by another way.
        status, text = self.shell.read(self.stage(), show, listener=JsonListener())
        sys.stdout.write(text.decode())
        return status

    def run(self) -> int:
        """Look, ask and fetch."""
        if self.shell.dry or (self.silent and not self.json):
            return self.fetch(f"download-{self.what}")
        found, status = self.look()
        if status:
            return status
        self.tell("title", found.title, self.heading(found))
        if not found.roots:
            self.tell("summary", NOTHING[self.what], NOTHING[self.what])
            return statuses.OK
        if not self.silent and not found.mapped and not self.confirmed(found):
            print(f"{self.what.capitalize()} download canceled.")
            return statuses.OK
        if not self.silent and not self.json and not self.chosen(found):
            print(f"{self.what.capitalize()} download canceled.")
            return statuses.OK
        sys.stdout.flush()
        return self.fetch("download-summary")

    def look(self) -> tuple[Found, int]:
        """What there is to fetch; a root of another system's form is asked for a new place first.

        Raises: Trouble (78) where it would have to ask and may not.
        """
        while True:
            found = Found()
            listener = JsonListener() if self.json else None
            status, lines = self.shell.read(self.stage("--dry-run"), listener=listener, hold=statuses.CONFIGURATION)
            found.read(lines)
            own = "windows" if os.name == "nt" else "posix"
            foreign = [root for root, form in found.formats.items() if form != own and root not in self.maps]
            if status != statuses.CONFIGURATION or not foreign:
                return found, status
            if self.silent:
                raise Trouble(
                    f"'{foreign[0]}' is a path of another system, and --yes gives it no place here: answer where its "
                    f"files go, or use dl-download --map",
                    statuses.CONFIGURATION,
                )
            for root in foreign:
                self.maps[root] = self.new_root(root, found.formats[root])

    def new_root(self, root: str, form: str) -> str:
        """The folder that a person or program names for a root of another system."""
        if self.json:
            self.tell("path", [root])
            return self.answered(1)[0]
        print(f"The job has files below {root}, a path of {form.capitalize()}, which this system has not.")
        return os.path.abspath(os.path.expanduser(self.shell.line("> Please enter a new root path: ")))

    def heading(self, found: Found) -> str:
        """The first line for a person."""
        place = "".join(f" {name[2:-3].capitalize()} {self.options[name]!r}" for name in ("--step-id", "--task-id")
                        if self.options.get(name))  # fmt: skip
        return f"Downloading {self.what} from Job {found.title!r}{place}"

    def tell(self, kind: str, value: object, text: str | None = None) -> None:
        """A message: to a program as JSON, to a person as text."""
        if self.json:
            print(json.dumps({"messageType": kind, "value": value}), flush=True)
        elif text is not None:
            print(text, flush=True)

    def answered(self, count: int) -> list[str]:
        """The roots that a program confirms, as many as it was told.

        Raises: Trouble (64) where it says anything else.
        """
        line = sys.stdin.readline()
        if not line.strip():
            self.tell("error", "")
            raise Trouble("nobody confirms the paths: give --yes to accept them all", statuses.USAGE)
        try:
            answer = json.loads(line)
            roots = answer["value"] if answer["messageType"] == "pathconfirm" else None
        except (ValueError, KeyError, TypeError):
            roots = None
        if not isinstance(roots, list) or len(roots) != count or not all(map(_is_absolute, roots)):
            told = f"expected a pathconfirm message with {count} absolute paths"
            self.tell("error", told)
            raise Trouble(told, statuses.USAGE)
        return [os.path.normpath(root) for root in roots]

    def confirmed(self, found: Found) -> bool:
        """Let a person or program agree to the roots or move them; False if they want no download."""
        roots = list(found.roots)
        if self.json:
            self.tell("presummary", {self.maps.get(root, root): found.roots[root] for root in roots})
            self.tell("path", [self.maps.get(root, root) for root in roots])
            for root, new in zip(roots, self.answered(len(roots)), strict=True):
                self.move(root, new)
            return True
        while True:
            print("\nSummary of files to download:")
            for root in roots:
                place = self.maps.get(root, root)
                paths = [os.path.join(place, path) for path in found.roots[root]]
                print(f"    {os.path.commonpath(paths)} ({_files(len(paths))})")
            print("\nThe files may go to several root directories, which are now:")
            for index, root in enumerate(roots):
                print(f"[{index}] {self.maps.get(root, root)}")
            numbers = [str(index) for index in range(len(roots))]
            answer = self.shell.line(
                "> Please enter the index of root directory to edit, y to proceed without changes, or n to cancel the "
                f"download ({', '.join([*numbers, 'y', 'n'])}) [y]: "
            )
            if answer in ("", "y"):
                return True
            if answer == "n":
                return False
            if answer in numbers:
                root = roots[int(answer)]
                place = self.maps.get(root, root)
                told = "> Please enter the new root directory path, or press Enter to keep it unchanged"
                self.move(root, os.path.abspath(os.path.expanduser(self.shell.line(f"{told} [{place}]: ") or place)))

    def move(self, root: str, place: str) -> None:
        """Have the files of a root go below `place`."""
        if place != root:
            self.maps[root] = place
        else:
            self.maps.pop(root, None)

    def chosen(self, found: Found) -> bool:
        """Let a person choose what happens to files that exist; False if they want no download."""
        from libdeadline import targets

        print("\nSummary of file paths to download:")
        for line in _summary(self.places(found)):
            print(f"  {line}")
        print()
        setting = targets.config_of(self.options).choice("settings.conflict_resolution")
        conflicts = [path for path in self.places(found) if os.path.isfile(path)]
        if self.conflict or setting != "NOT_SELECTED" or not conflicts:
            return True
        more = len(conflicts) - SHOWN_CONFLICTS
        print("These files are there already:")
        print("".join(f"        {path}\n" for path in conflicts[:SHOWN_CONFLICTS]), end="")
        print(f"        ... and {more} more\n" if more > 0 else "", end="")
        print("[1] Skip: do not download them\n[2] Overwrite: replace those that differ")
        print("[3] Create a copy: where they differ, put the new one beside it, with '(1)' at the end of its name")
        while True:
            answer = self.shell.line("> Please enter your choice (1, 2, 3, or n to cancel the download) [3]: ") or "3"
            if answer == "n":
                return False
            if answer in CONFLICTS:
                self.conflict = CONFLICTS[answer]
                return True

    def places(self, found: Found) -> list[str]:
        """Where the files go, one path for each."""
        if found.mapped and not self.maps:
            return [path for paths in found.local.values() for path in paths]
        return [os.path.join(self.maps.get(root, root), path) for root, paths in found.roots.items() for path in paths]


class JsonListener(Listener):
    """Passes progress and errors on to a program, as messages."""

    def __init__(self) -> None:
        self.percent = -1

    def progress(self, row: dict[str, object]) -> None:
        done, total = row.get("done_bytes"), row.get("total_bytes")
        if isinstance(done, int) and isinstance(total, int) and total:
            percent = min(100, 100 * done // total)
            if percent > self.percent:
                self.percent = percent
                print(json.dumps({"messageType": "progress", "value": str(percent)}), flush=True)

    def error(self, text: str) -> None:
        print(json.dumps({"messageType": "error", "value": text}), flush=True)


def _is_absolute(path: object) -> bool:
    return isinstance(path, str) and os.path.isabs(path)


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def _summary(paths: list[str]) -> list[str]:
    folders: dict[str, list[str]] = {}
    for path in paths:
        folders.setdefault(os.path.dirname(path), []).append(path)
    return [
        f"{listed[0] if len(listed) == 1 else folder + os.sep} ({_files(len(listed))})"
        for folder, listed in sorted(folders.items())
    ]
