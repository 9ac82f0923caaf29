"""The rules of the house: one stem, four files; imports go one way; usage text, page and test agree."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
PACKAGES = {"libdeadline": "libdeadline", "tools": "dl_tools", "worker": "dl_worker", "gui": "dl_gui"}
COMMANDS = sorted(path.name for path in (TOP / "bin").iterdir() if path.name not in ("try", "test"))


def module_of(command: str) -> Path:
    stem = command.replace("-", "_")
    for folder in (TOP / "tools", TOP / "worker", TOP / "gui"):
        for path in (folder / f"{stem}.py", folder / stem / "__init__.py"):
            if path.exists():
                return path
    raise AssertionError(f"bin/{command} has no module")


def page_of(command: str) -> Path:
    for section in ("1", "8"):
        path = TOP / "man" / f"man{section}" / f"{command}.{section}"
        if path.exists():
            return path
    raise AssertionError(f"bin/{command} has no man page")


def usage_of(command: str) -> str:
    docstring = ast.get_docstring(ast.parse(module_of(command).read_text()), clean=False)
    assert docstring, f"{command} has no usage text"
    return docstring


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_its_module_page_and_transcript(command: str) -> None:
    module_of(command)
    page_of(command)
    assert (TOP / "tests" / "pipelines" / f"{command}.t").exists()


def test_no_page_or_transcript_without_a_command() -> None:
    pages = {path.stem for section in ("man1", "man8") for path in (TOP / "man" / section).iterdir()}
    transcripts = {path.stem for path in (TOP / "tests" / "pipelines").glob("*.t")}
    assert pages == set(COMMANDS)
    assert {name for name in transcripts if name.startswith(("dl-", "deadline"))} == set(COMMANDS)


def test_the_package_installs_every_launcher() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    assert sorted(project["tool"]["setuptools"]["script-files"]) == [f"bin/{command}" for command in COMMANDS]


def test_the_package_holds_every_folder_with_modules() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set()
    for folder, package in PACKAGES.items():
        for init in (TOP / folder).rglob("__init__.py"):
            found.add(".".join([package, *init.parent.relative_to(TOP / folder).parts]))
    assert found == set(project["packages"])


@pytest.mark.parametrize("command", COMMANDS)
def test_launchers_are_alike(command: str) -> None:
    module = module_of(command)
    name = command.replace("-", "_")
    package = PACKAGES[module.relative_to(TOP).parts[0]]
    hash_launcher = (TOP / "bin" / "dl-hash").read_text()
    expected = hash_launcher.replace("from dl_tools.dl_hash", f"from {package}.{name}").replace(
        '!= "dl_tools"', f'!= "{package}"'
    )
    assert (TOP / "bin" / command).read_text() == expected


def imports(path: Path) -> list[tuple[str, int, bool]]:
    """(module, dots, at the top) of each import."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level, id(node) in top))
    return found


def test_imports_go_one_way() -> None:
    wrong = []
    for folder in ("libdeadline", "tools", "worker", "gui"):
        for path in (TOP / folder).rglob("*.py"):
            for module, level, at_top in imports(path):
                first = module.split(".")[0]
                own = {"libdeadline": "libdeadline", "tools": "dl_tools", "worker": "dl_worker", "gui": "dl_gui"}[
                    folder
                ]
                if first in {"libdeadline", "dl_tools", "dl_worker", "dl_gui"} - {own, "libdeadline"}:
                    wrong.append(f"{path.relative_to(TOP)} imports {module}")
                if folder == "libdeadline" and at_top and first in ("boto3", "botocore", "openjd", "PySide6", "yaml"):
                    wrong.append(f"{path.relative_to(TOP)} imports {module} at its top")
                if folder == "gui" and first in ("boto3", "botocore"):
                    wrong.append(f"{path.relative_to(TOP)} imports {module}")
                if folder == "tools" and path.parent == TOP / "tools" and level == 1:
                    wrong.append(f"{path.relative_to(TOP)} imports another tool: .{module}")
    assert not wrong


def test_only_launchers_exit_and_the_kernel_prints_nothing() -> None:
    wrong = []
    for folder in ("libdeadline", "tools", "worker"):
        for path in (TOP / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    if called in ("sys.exit", "exit", "quit") or (folder == "libdeadline" and called == "print"):
                        wrong.append(f"{path.relative_to(TOP)}:{node.lineno} calls {called}")
    assert not wrong


def test_no_two_test_modules_have_one_name() -> None:
    """The folders of tests are no packages, so that two of one name keep the whole suite from being collected."""
    names = Counter(path.name for path in (TOP / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def option_names(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "deadline"])
def test_page_and_usage_name_the_same_options(command: str) -> None:
    options = usage_of(command).partition("\nUsage:")[2]
    declared = set(re.findall(r"^ {2,4}(?:-\w, )?(--[a-z][a-z0-9-]+)", options, re.M))
    page = page_of(command).read_text().replace("\\-", "-")
    fl = {f"--{name}" for name in re.findall(r"Fl -([a-z][a-z0-9-]+)", page)} | option_names(page)
    assert declared <= fl, f"not in the page: {sorted(declared - fl)}"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_has_its_sections(command: str) -> None:
    page = page_of(command).read_text()
    sections = re.findall(r"^\.Sh (.+)$", page, re.M)
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "EXAMPLES", "SEE ALSO"):
        assert section in sections, f"{command}: no {section}"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_version(command: str) -> None:
    helped = subprocess.run([sys.executable, TOP / "bin" / command, "--help"], capture_output=True, text=True)
    assert helped.returncode == 0
    assert helped.stdout.startswith(f"{command} - ")
    version = subprocess.run([sys.executable, TOP / "bin" / command, "--version"], capture_output=True, text=True)
    assert version.stdout.startswith(f"{command}, version ")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_option_is_one_line_and_status_64(command: str) -> None:
    done = subprocess.run(
        [sys.executable, TOP / "bin" / command, "--no-such-option"], capture_output=True, text=True, stdin=-3
    )
    assert done.returncode == 64
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_the_records_page_is_the_definition() -> None:
    from libdeadline.records import KINDS

    page = (TOP / "man" / "man5" / "dl-records.5").read_text()
    sections = {}
    for part in page.split("\n.Ss ")[1:]:
        title, _, body = part.partition("\n")
        sections[title.strip().strip('"')] = body.split("\n.Sh ")[0]
    for kind, definition in KINDS.items():
        assert kind in sections, f"dl-records(5) lacks the kind {kind}"
        rows = {
            (name, kind_of, needed == "yes", meaning)
            for name, kind_of, needed, meaning in re.findall(
                r"^\.It Va (\S+) \(([a-z]+), required: (yes|no)\)\n(.+)$", sections[kind], re.M
            )
        }
        assert rows == {
            (field.name, field.type_name, field.required, field.meaning.replace("\\", "\\e"))
            for field in definition.fields()
        }, kind
