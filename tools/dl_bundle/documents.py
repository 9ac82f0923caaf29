"""The files of a job bundle: read, refused where they are ambiguous or malformed, and the name put into a template.

Source: attachments specification, job bundle files; template schema of Open Job Description 2023-09.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from libdeadline import paths, statuses
from libdeadline.errors import Trouble, os_trouble
from libdeadline.walk import is_utf8

SPECIFICATION = "jobtemplate-2023-09"
LONGEST_TEMPLATE = 1_000_000  # characters that CreateJob takes
LARGEST_FILE_BYTES = 16 << 20


class Document(NamedTuple):
    """A file of a bundle: its path, text, JSON or YAML, and what it holds."""

    path: str
    text: str
    type: str
    data: Any


def check_folder(folder: str) -> str:
    """The bundle's folder, absolute, after a look that no link in it leads out.

    Raises: Trouble 66 where there is no such folder, 65 naming the first link that leads out.
    """
    path = paths.absolute(folder)
    if not os.path.isdir(path):
        what = "is not a folder" if os.path.exists(path) else "does not exist"
        raise Trouble(f"the job bundle '{folder}' {what}", statuses.NO_INPUT, path=path)
    if not is_utf8(path):
        raise Trouble(
            f"the path of the job bundle '{path}' is no UTF-8, which no job can hold", statuses.DATA, path=path
        )
    inside = os.path.realpath(path)
    for link in _links(path):
        target = os.path.realpath(link)
        if not paths.is_within(target, inside):
            raise Trouble(
                f"the job bundle is refused: its link '{link}' leads out of it, to '{target}'", statuses.DATA, path=link
            )
    return path


def _links(folder: str) -> Iterator[str]:
    folders = [folder]
    while folders:
        here = folders.pop()
        try:
            with os.scandir(here) as listing:
                for entry in listing:
                    if entry.is_symlink():
                        yield entry.path
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError as error:
            raise os_trouble(error, "read") from None


def find(folder: str, stem: str) -> str | None:
    """The path of `stem`.yaml or `stem`.json in the bundle, or None.

    Raises: Trouble (65) where there are both.
    """
    found = [path for end in ("yaml", "json") if os.path.exists(path := os.path.join(folder, f"{stem}.{end}"))]
    if len(found) > 1:
        raise Trouble(f"the job bundle '{folder}' has {stem}.yaml and {stem}.json: remove one", statuses.DATA)
    return found[0] if found else None


def read(folder: str, stem: str) -> Document | None:
    """The document `stem` of the bundle, or None where there is none.

    Raises: Trouble 65 malformed, or two of them; 66, 74 or 77 unreadable.
    """
    path = find(folder, stem)
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise os_trouble(error, "read") from None
    if len(raw) > LARGEST_FILE_BYTES:
        raise Trouble(f"'{path}' is larger than {LARGEST_FILE_BYTES >> 20} MiB", statuses.DATA, path=path)
    try:
        text = raw.decode("utf-8-sig" if path.endswith(".json") else "utf-8")
    except UnicodeDecodeError as error:
        raise Trouble(f"'{path}' is not UTF-8 at byte {error.start}", statuses.DATA, path=path) from None
    kind = "JSON" if path.endswith(".json") else "YAML"
    try:
        data = parse(text, kind)
    except ValueError as error:
        raise Trouble(f"'{path}' is not {kind}: {error}", statuses.DATA, path=path) from None
    return Document(path, text, kind, data)


def parse(text: str, kind: str) -> Any:
    """What JSON or YAML text holds.

    Raises: ValueError with a line that says what is wrong and where.
    """
    if kind == "JSON":
        import json

        try:
            return json.loads(text)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{getattr(error, 'problem', None) or error}{where}") from None
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{error}") from None


def template(folder: str) -> Document:
    """The job template of the bundle, checked as far as this needs no model of its inside.

    Raises: Trouble 66 where there is none, 65 where it can't be one.
    """
    document = read(folder, "template")
    if document is None:
        raise Trouble(
            f"'{folder}' is no job bundle: it has no template.yaml or template.json", statuses.NO_INPUT, path=folder
        )

    def refuse(why: str) -> Trouble:
        return Trouble(f"job template '{document.path}': {why}", statuses.DATA, path=document.path)

    data = document.data
    if not isinstance(data, dict):
        raise refuse("it is not an object with members")
    version = data.get("specificationVersion")
    if version != SPECIFICATION:
        raise refuse(
            f"specificationVersion is '{version}', but only '{SPECIFICATION}' is known"
            if version
            else "it has no specificationVersion"
        )
    if not isinstance(data.get("name"), str) or not data["name"]:
        raise refuse("it has no name")
    if not isinstance(data.get("steps"), list) or not data["steps"]:
        raise refuse("it has no steps")
    if len(document.text) > LONGEST_TEMPLATE:
        raise refuse(f"it has {len(document.text)} characters; the service takes {LONGEST_TEMPLATE}")
    return document


def renamed(document: Document, name: str) -> Document:
    """The template with another name; the rest of its text stays as it is, comments included."""
    data = {**document.data, "name": name}
    import json

    import yaml

    text = document.text
    if document.type == "JSON":
        quoted = json.dumps(name)
    else:
        quoted = yaml.safe_dump(name, default_style='"', allow_unicode=True, width=1 << 30).strip()
    try:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        node = yaml.compose(text, Loader=loader)
        for key, value in node.value:
            if key.value == "name":
                start, end = value.start_mark.index, value.end_mark.index
                tail = "\n" if text[start:end].endswith("\n") else ""
                edited = text[:start] + quoted + tail + text[end:]
                if parse(edited, document.type) == data:
                    return document._replace(text=edited, data=data)
    except (yaml.YAMLError, ValueError, AttributeError):
        pass  # JSON that is no YAML, or marks that don't fit
    edited = json.dumps(data) if document.type == "JSON" else yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    return document._replace(text=edited, data=data)


def asset_references(folder: str) -> dict[str, list[str]]:
    """The lists of asset_references: input_files, input_dirs, output_dirs, referenced; empty strings dropped.

    Raises: Trouble (65) where the file is of another shape.
    """
    document = read(folder, "asset_references")
    lists: dict[str, list[str]] = {"input_files": [], "input_dirs": [], "output_dirs": [], "referenced": []}
    if document is None or document.data is None:
        return lists

    def refuse(why: str) -> Trouble:
        return Trouble(f"'{document.path}': {why}", statuses.DATA, path=document.path)

    def member(of: Any, name: str, kind: type) -> Any:
        if not isinstance(of, dict):
            raise refuse(f"the parent of '{name}' is not an object")
        value = of.get(name)
        if value is None:
            return kind()
        if not isinstance(value, kind):
            raise refuse(f"'{name}' is not {'a list' if kind is list else 'an object'}")
        return value

    if not isinstance(document.data, dict) or "assetReferences" not in document.data:
        raise refuse("it has no 'assetReferences'")
    references = member(document.data, "assetReferences", dict)
    inputs, outputs = member(references, "inputs", dict), member(references, "outputs", dict)
    for name, found in (
        ("input_files", member(inputs, "filenames", list)),
        ("input_dirs", member(inputs, "directories", list)),
        ("output_dirs", member(outputs, "directories", list)),
        ("referenced", member(references, "referencedPaths", list)),
    ):
        for path in found:
            if not isinstance(path, str) or "\0" in path:
                raise refuse(f"{path!r} is not a path")
        lists[name] = [path for path in found if path]
    return lists
