"""Downloads of a job's files: the dialogue with a person or a program, around one pipeline.

    look:   dl-download --dry-run ...                        what there is, read by us
    ask:    where roots go, what to do about files that exist
    fetch:  dl-download --map=... ... | dl-show download-... what is printed and can be pasted

Where nothing is to be asked, a download is the last line alone; a program is told the job's name before.
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

    def place(self, root: str) -> str:
        """Where the files of a root go: its folder here, or the root itself where they go to several."""
        places = set()
        for path, local in zip(self.roots[root], self.local[root], strict=True):
            ending = os.sep + path.replace("/", os.sep)
            places.add(local.removesuffix(ending) or os.sep if local.endswith(ending) else None)
        place = places.pop()
        return root if places or place is None else place


class Download:
    """One download."""

    def __init__(self, options: Arguments, shell: Shell, what: str) -> None:
        self.options, self.shell, self.what = options, shell, what
        self.json = output_form(options) == "json"
        self.silent = accepts_all(options)
        self.hearing = Hearing(as_json=self.json)
        self.maps: dict[str, str] = {}
        self.by_local = options.choice("--match-paths-by", ("job", "local")) != "job"
        self.globs = given(options, "--include")
        if self.globs:
            self.globs.append(f"--match-paths-by={'local' if self.by_local else 'job'}")
        self.words = [*reach(options), *given(options, "--step-id", "--task-id", "--ignore-storage-profiles")]
        self.words += ["--input"] if what == "input" else []
        self.conflict = options.choice("--conflict-resolution", ("SKIP", "OVERWRITE", "CREATE_COPY"))
        if options.get("--task-id") and not options["--step-id"]:
            raise Trouble("--task-id needs --step-id as well", statuses.USAGE)
        self.job_id = job_of(options)

    def stage(self, *more: str, globs: bool = True) -> Stage:
        """The stage that fetches, or looks with --dry-run; without `globs` at all files."""
        maps = [f"--map={old}={new}" for old, new in self.maps.items()]
        conflict = [f"--conflict-resolution={self.conflict}"] if self.conflict else []
        return ["dl-download", *self.words, *(self.globs if globs else []), *maps, *conflict, *more, self.job_id]

    def fetch(self, view: str) -> int:
        """Fetch the files, and print what came of it."""
        show = ["dl-show", f"--output={'json' if self.json else 'verbose'}", view]
        self.hearing.looking = False
        if not self.json or self.shell.dry:
            return self.shell.run(self.stage(), show, listener=self.hearing)
        # The summary must come after all progress, which reaches us by another way.
        status, text = self.shell.read(self.stage(), show, listener=self.hearing)
        if text and "fileCount" not in json.loads(text):
            self.tell_nothing()
        else:
            sys.stdout.write(text.decode())
        return status

    def run(self) -> int:
        """Look, ask and fetch."""
        if self.shell.dry or (self.silent and not self.json):
            return self.fetch(f"download-{self.what}")
        if self.silent:
            return self.told_title() or self.fetch("download-summary")
        # What globs of paths on this host match is known only once it is known where the roots go.
        late = bool(self.globs) and self.by_local
        # Of input, what they match where the roots are now is told, as the reference client does.
        found, status = self.look(globs=not late or self.what == "input")
        if late and self.what == "input" and not status and not found.roots:
            found, status = self.look(globs=False)
        if status:
            return status
        if found.roots and self.asks_for_roots(found) and not self.confirmed(found):
            print(f"{self.what.capitalize()} download canceled.")
            return statuses.OK
        if found.roots and late:
            found, status = self.look(globs=True)
            if status:
                return status
        if not found.roots:
            self.tell_nothing()
            return statuses.OK
        if not self.json and not self.chosen(found):
            print(f"{self.what.capitalize()} download canceled.")
            return statuses.OK
        sys.stdout.flush()
        return self.fetch("download-summary")

    def told_title(self) -> int:
        """Tell a program the job's name. Returns the status."""
        status, lines = self.shell.read(
            ["dl-ls", *reach(self.options), f"--job-id={self.job_id}", "job"], listener=self.hearing
        )
        for row in map(json.loads, lines.splitlines()):
            if row["type"] == "resource":
                self.tell("title", row["data"]["name"])
        return status

    def tell_nothing(self) -> None:
        """Tell that there is nothing to download."""
        told = f"No {self.what} files match the globs." if self.globs else NOTHING[self.what]
        self.tell("summary", told, told)

    def look(self, *, globs: bool) -> tuple[Found, int]:
        """What there is to fetch; for a root that has no place on this system a new one is asked first.

        Raises: Trouble (78) where something else is not as it should be.
        """
        while True:
            found = Found()
            self.hearing.looking, self.hearing.held = True, None
            status, lines = self.shell.read(self.stage("--dry-run", globs=globs), listener=self.hearing)
            found.read(lines)
            if found.title and not self.hearing.titled:
                self.hearing.titled = True
                self.tell("title", found.title, self.heading(found))
            self.hearing.catch_up()
            held = self.hearing.held
            if held is None:
                return found, status
            root = str(held.get("path"))
            if root not in found.formats:
                raise Trouble(str(held.get("message")), statuses.CONFIGURATION)
            self.maps[root] = self.new_root(root, found.formats[root])

    def asks_for_roots(self, found: Found) -> bool:
        """Whether roots are to be agreed on. Storage profiles say it of output, as with the reference client."""
        if self.what == "input":
            return True
        return all(root in self.maps or found.place(root) == root for root in found.roots)

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
            tell(kind, value)
        elif text is not None:
            print(text, flush=True)

    def answered(self, count: int) -> list[str]:
        """The roots that a program confirms, as many as it was told.

        Raises: Trouble (64) where it says anything else.
        """
        line = sys.stdin.readline()
        if not line.strip():
            raise Trouble("nobody confirms the paths: give --yes to accept them all", statuses.USAGE)
        try:
            answer = json.loads(line)
            roots = answer["value"] if answer["messageType"] == "pathconfirm" else None
        except (ValueError, KeyError, TypeError):
            roots = None
        if not isinstance(roots, list) or len(roots) != count or not all(map(_is_absolute, roots)):
            raise Trouble(f"expected a pathconfirm message with {count} absolute paths", statuses.USAGE)
        return [os.path.normpath(root) for root in roots]

    def confirmed(self, found: Found) -> bool:
        """Let a person or program agree to the roots or move them; False if they want no download."""
        groups = _merged([(found.place(root), [root]) for root in found.roots])
        if self.json:
            paths = {place: [path for root in roots for path in found.roots[root]] for place, roots in groups}
            self.tell("presummary", paths)
            self.tell("path", list(paths))
            for (place, roots), new in zip(groups, self.answered(len(groups)), strict=True):
                self.move(roots, place, new)
            return True
        while True:
            print("\nSummary of files to download:")
            for place, roots in groups:
                listed = [os.path.join(place, path) for root in roots for path in found.roots[root]]
                print(f"    {os.path.commonpath(listed)} ({_files(len(listed))})")
            print("\nThe files may go to several root directories, which are now:")
            for index, (place, _) in enumerate(groups):
                print(f"[{index}] {place}")
            numbers = [str(index) for index in range(len(groups))]
            answer = self.shell.line(
                "> Please enter the index of root directory to edit, y to proceed without changes, or n to cancel the "
                f"download ({', '.join([*numbers, 'y', 'n'])}) [y]: "
            )
            if answer in ("", "y"):
                return True
            if answer == "n":
                return False
            if answer in numbers:
                place, roots = groups[int(answer)]
                told = "> Please enter the new root directory path, or press Enter to keep it unchanged"
                new = os.path.abspath(os.path.expanduser(self.shell.line(f"{told} [{place}]: ") or place))
                self.move(roots, place, new)
                groups[int(answer)] = new, roots
                groups = _merged(groups)

    def move(self, roots: list[str], place: str, new: str) -> None:
        """Have the files of roots go below `new`, and not `place`."""
        if new != place:
            self.maps.update(dict.fromkeys(roots, new))

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
        places = []
        for root, paths in found.roots.items():
            if root in self.maps:
                places += [os.path.join(self.maps[root], path) for path in paths]
            else:
                places += found.local[root]
        return places


class Hearing(Listener):
    """Hears what the stages say: passes it on to a program as messages, and tells each warning once."""

    def __init__(self, *, as_json: bool) -> None:
        self.json = as_json
        self.percent = -1
        self.warned: set[str] = set()
        self.waiting: list[tuple[str, str]] = []  # what a look brought, to be told behind the title
        self.titled = False
        self.looking = False
        self.held: dict[str, object] | None = None  # the trouble with a look that a new root may end

    def progress(self, row: dict[str, object]) -> None:
        done, total = row.get("done_bytes"), row.get("total_bytes")
        if self.json and not self.looking and isinstance(done, int) and isinstance(total, int) and total:
            percent = min(100, 100 * done // total)
            if percent > self.percent:
                self.percent = percent
                tell("progress", str(percent))

    def keeps(self, row: dict[str, object]) -> bool:
        if row.get("status") is None:
            message = str(row.get("message"))
            if message in self.warned:
                return True
            self.warned.add(message)
            self.say("warning", message)
        elif self.looking and row.get("status") == statuses.CONFIGURATION:
            self.held = row
            return True
        return False

    def error(self, text: str) -> None:
        self.say("error", text)

    def say(self, kind: str, text: str) -> None:
        """Tell a program, while it is looked for what there is, behind the title."""
        if self.json and self.looking:
            self.waiting.append((kind, text))
        elif self.json:
            tell(kind, text)

    def catch_up(self) -> None:
        """Tell a program what a look brought."""
        for kind, text in self.waiting:
            tell(kind, text)
        self.waiting.clear()


def download(options: Arguments, shell: Shell, what: str) -> int:
    """Download the output or input of a job, as the options say. A program is told of every failure.

    Raises: Trouble.
    """
    try:
        return Download(options, shell, what).run()
    except Trouble as trouble:
        if output_form(options) == "json":
            tell("error", trouble.message)
        raise


def tell(kind: str, value: object) -> None:
    """A message for a program."""
    print(json.dumps({"messageType": kind, "value": value}), flush=True)


def _is_absolute(path: object) -> bool:
    return isinstance(path, str) and os.path.isabs(path)


def _merged(groups: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """Places and the roots that go there, each place once."""
    merged: dict[str, list[str]] = {}
    for place, roots in groups:
        merged.setdefault(place, []).extend(roots)
    return list(merged.items())


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
