"""Parameter values and definitions, judged as openjd-model judges them."""

import json
from pathlib import Path

import pytest
from dl_tools.dl_bundle import documents, parameters, values
from hypothesis import given, settings
from hypothesis import strategies as st

from libdeadline.errors import Trouble


def definition(**fields: object) -> parameters.Definition:
    return parameters.definitions([{"name": "P", **fields}], "here")["P"]


# definition, value, what CreateJob gets; None: it is refused
VALUES = [
    ({"type": "STRING"}, "text", {"string": "text"}),
    ({"type": "STRING"}, "", {"string": ""}),
    ({"type": "STRING"}, 5, {"string": "5"}),
    ({"type": "STRING"}, True, None),
    ({"type": "STRING"}, ["x"], None),
    ({"type": "STRING", "minLength": 2}, "a", None),
    ({"type": "STRING", "maxLength": 2}, "abc", None),
    ({"type": "STRING", "allowedValues": ["a", "b"]}, "a", {"string": "a"}),
    ({"type": "STRING", "allowedValues": ["a", "b"]}, "c", None),
    ({"type": "STRING"}, "x" * 1024, {"string": "x" * 1024}),
    ({"type": "STRING"}, "x" * 1025, None),
    ({"type": "PATH"}, "/a", {"path": "/a"}),
    ({"type": "PATH"}, None, None),
    ({"type": "INT"}, "5", {"int": "5"}),
    ({"type": "INT"}, " -05 ", {"int": "-5"}),
    ({"type": "INT"}, 5.0, {"int": "5"}),
    ({"type": "INT"}, 5.5, None),
    ({"type": "INT"}, "5.0", None),
    ({"type": "INT"}, "five", None),
    ({"type": "INT"}, "", None),
    ({"type": "INT"}, True, None),
    ({"type": "INT"}, "9" * 21, None),
    ({"type": "INT", "minValue": 1}, 0, None),
    ({"type": "INT", "minValue": "1"}, 1, {"int": "1"}),
    ({"type": "INT", "maxValue": 0}, 1, None),
    ({"type": "INT", "allowedValues": [1, "2"]}, "2", {"int": "2"}),
    ({"type": "INT", "allowedValues": [1, "2"]}, "3", None),
    ({"type": "FLOAT"}, "1.5e3", {"float": "1.5e3"}),
    ({"type": "FLOAT"}, 0.1, {"float": "0.1"}),
    ({"type": "FLOAT"}, 3, {"float": "3"}),
    ({"type": "FLOAT"}, ".5", {"float": "0.5"}),
    ({"type": "FLOAT"}, "+1", {"float": "1"}),
    ({"type": "FLOAT"}, "nan", None),
    ({"type": "FLOAT"}, "inf", None),
    ({"type": "FLOAT"}, "1,5", None),
    ({"type": "FLOAT"}, False, None),
    ({"type": "FLOAT"}, "3." + "1" * 40, {"float": "3.111111111111111"}),
    ({"type": "FLOAT", "minValue": 0.1}, "0.0999", None),
    ({"type": "FLOAT", "minValue": 0.1}, "0.1", {"float": "0.1"}),
    ({"type": "FLOAT", "allowedValues": [0.5, 1]}, "1.0", {"float": "1.0"}),
    ({"type": "BOOL"}, True, {"bool": "true"}),
    ({"type": "BOOL"}, "Off", {"bool": "false"}),
    ({"type": "BOOL"}, 1, {"bool": "true"}),
    ({"type": "BOOL"}, 0.0, {"bool": "false"}),
    ({"type": "BOOL"}, 2, None),
    ({"type": "BOOL"}, "maybe", None),
    ({"type": "bool"}, "yes", {"bool": "true"}),
    ({"type": "RANGE_EXPR"}, "1-10:2,20", {"rangeExpr": "1-10:2,20"}),
    ({"type": "RANGE_EXPR"}, "10-1:-3", {"rangeExpr": "10-1:-3"}),
    ({"type": "RANGE_EXPR"}, "-5--1", {"rangeExpr": "-5--1"}),
    ({"type": "RANGE_EXPR"}, 7, {"rangeExpr": "7"}),
    ({"type": "RANGE_EXPR"}, "10-1", None),
    ({"type": "RANGE_EXPR"}, "1-10:0", None),
    ({"type": "RANGE_EXPR"}, "1-", None),
    ({"type": "RANGE_EXPR"}, "", None),
    ({"type": "LIST[STRING]"}, ["a", "b"], {"stringList": ["a", "b"]}),
    ({"type": "LIST[STRING]"}, '["a"]', {"stringList": ["a"]}),
    ({"type": "LIST[STRING]"}, "a", None),
    ({"type": "LIST[STRING]", "item": {"maxLength": 1}}, ["ab"], None),
    ({"type": "LIST[INT]", "minLength": 1}, [], None),
    ({"type": "LIST[INT]", "maxLength": 1}, [1, 2], None),
    ({"type": "LIST[INT]", "item": {"maxValue": 5}}, [5], {"intList": ["5"]}),
    ({"type": "LIST[INT]", "item": {"maxValue": 5}}, [6], None),
    ({"type": "LIST[FLOAT]"}, [0.5, 1], {"floatList": ["0.5", "1"]}),
    ({"type": "LIST[BOOL]"}, [True, "no"], {"boolList": ["true", "false"]}),
    ({"type": "LIST[PATH]"}, ["/a"], {"pathList": ["/a"]}),
    ({"type": "LIST[LIST[INT]]", "item": {"maxLength": 2}}, [[1, 2], []], {"intListList": [["1", "2"], []]}),
    ({"type": "LIST[LIST[INT]]", "item": {"maxLength": 2}}, [[1, 2, 3]], None),
    ({"type": "LIST[LIST[INT]]"}, [1], None),
    ({"type": "LIST[INT]"}, list(range(513)), None),
]


@pytest.mark.parametrize(("fields", "value", "wanted"), VALUES)
def test_values(fields: dict[str, object], value: object, wanted: object) -> None:
    if wanted is None:
        with pytest.raises(Trouble, match="parameter 'P': ") as caught:
            parameters.checked("P", definition(**fields), value)
        assert caught.value.status == 65
    else:
        assert parameters.checked("P", definition(**fields), value) == wanted


texts = st.text("0123456789-+.eE_ nainfx", max_size=6) | st.integers(-50, 50).map(str) | st.floats(-9, 9).map(str)


@settings(deadline=None)  # the model's import counts once
@given(
    st.sampled_from(["INT", "FLOAT", "STRING"]),
    texts,
    st.none() | st.integers(1, 5),
    st.none() | st.integers(5, 9),
)
def test_values_pass_as_with_openjd(kind: str, text: str, low: int | None, high: int | None) -> None:
    from openjd.model import decode_job_template, preprocess_job_parameters

    names = ("minLength", "maxLength") if kind == "STRING" else ("minValue", "maxValue")
    limits = {name: value for name, value in zip(names, (low, high), strict=True) if value is not None}
    template = decode_job_template(
        template={
            "specificationVersion": "jobtemplate-2023-09",
            "name": "n",
            "parameterDefinitions": [{"name": "P", "type": kind, **limits}],
            "steps": [{"name": "s", "script": {"actions": {"onRun": {"command": "c"}}}}],
        }
    )
    try:
        preprocess_job_parameters(
            job_template=template,
            job_parameter_values={"P": text},
            job_template_dir=Path("/"),
            current_working_dir=Path("/"),
        )
        theirs = True
    except ValueError:
        theirs = False
    try:
        sent = parameters.checked("P", definition(type=kind, **limits), text)
        ours = True
    except Trouble:
        ours = False
    if ours:
        assert theirs
        if kind != "STRING":
            assert float(next(iter(sent.values()))) == pytest.approx(float(text.replace("_", "")))
    elif theirs:
        # What Python reads as a number, but no service does.
        assert kind != "STRING" and ("_" in text or "nan" in text.lower() or "inf" in text.lower())


@pytest.mark.parametrize(
    "found",
    [
        {},
        [1],
        [{"name": "P"}],
        [{"name": "P", "type": "TEXT"}],
        [{"name": "1P", "type": "INT"}],
        [{"name": "", "type": "INT"}],
        [{"name": "P", "type": "INT"}, {"name": "P", "type": "INT"}],
        [{"name": "P", "type": "PATH", "dataFlow": "UP"}],
        [{"name": "P", "type": "PATH", "objectType": "LINK"}],
        [{"name": "P", "type": "INT", "allowedValues": 1}],
    ],
)
def test_definitions_of_another_shape_are_refused(found: object) -> None:
    with pytest.raises(Trouble, match="^here: ") as caught:
        parameters.definitions(found, "here")
    assert caught.value.status == 65


def named(**fields: object) -> dict[str, parameters.Definition]:
    return {"P": definition(**fields)}


def test_queue_and_template_must_agree() -> None:
    queue = [("Conda", named(type="STRING", default="a", allowedValues=["a", "b"]))]
    merged = parameters.merged(named(type="STRING", default="b", allowedValues=["b", "a"], description="d"), queue)
    assert merged["P"]["default"] == "b" and merged["P"]["description"] == "d"
    for different in (
        {"type": "INT"},
        {"type": "STRING"},
        {"type": "STRING", "allowedValues": ["a"]},
        {"type": "STRING", "allowedValues": ["a", "b"], "maxLength": 3},
    ):
        with pytest.raises(Trouble, match=r"differently in queue environment 'Conda' and in the template"):
            parameters.merged(named(**different), queue)
    with pytest.raises(Trouble, match=r"queue environment 'Conda' and in queue environment 'Other': type"):
        parameters.merged({}, [("Conda", named(type="INT")), ("Other", named(type="FLOAT"))])


def resolve(tmp_path: Path, definitions: list[object], stored: object = None, given: object = None) -> values.Values:
    return values.resolve(str(tmp_path), parameters.definitions(definitions, "here"), stored or {}, given or {})


FLOWS = [
    ("NONE", None, {"referenced": ["a/b"]}),
    ("IN", None, {"input_dirs": ["a/b"]}),
    ("IN", "FILE", {"input_files": ["a/b"]}),
    ("OUT", "DIRECTORY", {"output_dirs": ["a/b"]}),
    ("OUT", "FILE", {"output_dirs": ["a"]}),
    ("INOUT", "DIRECTORY", {"input_dirs": ["a/b"], "output_dirs": ["a/b"]}),
    ("INOUT", "FILE", {"input_files": ["a/b"], "output_dirs": ["a"]}),
]


@pytest.mark.parametrize(("flow", "object_type", "wanted"), FLOWS)
@pytest.mark.parametrize("way", ["default", "stored", "list"])
def test_paths_become_inputs_and_outputs(
    tmp_path: Path, flow: str, object_type: str | None, wanted: dict[str, list[str]], way: str
) -> None:
    fields: dict[str, object] = {"name": "P", "type": "LIST[PATH]" if way == "list" else "PATH", "dataFlow": flow}
    if object_type:
        fields["objectType"] = object_type
    if way == "default":
        fields["default"] = "a/b"
    value = {"stored": "a/b", "list": ["a/b"]}.get(way)
    found = resolve(tmp_path, [fields], {"P": value} if value else {})
    assert {name: paths for name, paths in found.lists.items() if paths} == {
        name: [f"{tmp_path}/{path}" for path in paths] for name, paths in wanted.items()
    }


def test_paths_of_the_command_line_start_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rows = [{"name": "P", "type": "PATH", "dataFlow": "IN", "objectType": "FILE"}]
    found = resolve(tmp_path, rows, {"P": "old"}, {"P": "x/f"})
    assert found.sent == {"P": {"path": f"{tmp_path}/here/x/f"}}
    assert found.lists["input_files"] == [f"{tmp_path}/here/x/f"]
    assert found.chosen_paths == [f"{tmp_path}/here/x"]


def test_an_empty_path_takes_the_place_of_another_and_brings_nothing(tmp_path: Path) -> None:
    found = resolve(tmp_path, [{"name": "P", "type": "PATH", "dataFlow": "IN", "default": "d"}], {"P": "x"}, {"P": ""})
    assert found.sent == {"P": {"path": ""}}
    assert not any(found.lists.values())


def test_paths_of_a_choice_stay_as_they_are(tmp_path: Path) -> None:
    rows = [{"name": "P", "type": "PATH", "allowedValues": ["x", "y"], "default": "x"}]
    found = resolve(tmp_path, rows)
    assert found.sent == {}
    assert resolve(tmp_path, rows, {"P": "y"}).sent == {"P": {"path": "y"}}


@pytest.mark.parametrize("default", ["/etc", "../x", "a/../../x", "link/x"])
def test_a_default_path_stays_in_the_bundle(tmp_path: Path, default: str) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "link").symlink_to(tmp_path)
    with pytest.raises(Trouble, match="parameter 'P': its default"):
        resolve(bundle, [{"name": "P", "type": "PATH", "default": default}])


def test_plain_defaults_are_left_to_the_service_and_missing_values_are_refused(tmp_path: Path) -> None:
    assert resolve(tmp_path, [{"name": "P", "type": "INT", "default": 1}]).sent == {}
    with pytest.raises(Trouble, match="has no default and no value"):
        resolve(tmp_path, [{"name": "P", "type": "INT"}])
    with pytest.raises(Trouble, match="no job parameter 'Q'; the job has: P"):
        resolve(tmp_path, [{"name": "P", "type": "INT", "default": 1}], {}, {"Q": "1"})
    with pytest.raises(Trouble, match="no job parameter 'Q'"):
        resolve(tmp_path, [], {"Q": "1"})
    assert resolve(tmp_path, [], {"other:thing": "1"}).sent == {}


def test_fields_of_the_job_among_the_values() -> None:
    values = {"deadline:priority": "77", "deadline:targetTaskRunStatus": "suspended", "A": 1}
    assert parameters.job_fields(values, "f") == {"priority": 77, "target_task_run_status": "SUSPENDED"}
    assert values == {"A": 1}
    for name, value in (("priority", 101), ("priority", "x"), ("maxWorkerCount", -2), ("state", 1), ("priority", True)):
        with pytest.raises(Trouble):
            parameters.job_fields({f"deadline:{name}": value}, "f")


def test_values_are_given_in_three_forms(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("A: 3\nB: [1, 2]\n")
    (tmp_path / "v.json").write_text(json.dumps({"parameterValues": [{"name": "C", "value": "x"}]}))
    given = ["A=1=2\nmore", '{"A": 2, "D": "d"}', f"file://{tmp_path}/v.yaml", f"file://{tmp_path}/v.json", "D="]
    assert parameters.from_options(given) == {"A": 3, "D": "", "B": [1, 2], "C": "x"}
    assert parameters.from_options(given[:1]) == {"A": "1=2\nmore"}


TEMPLATES = [
    ("YAML", "# top\nname: old # why\nsteps: [a]\n"),
    ("YAML", "name: |\n  old\n  text\nsteps:\n- name: old\n"),
    ("YAML", "steps: [{name: x}]\n'name': \"old\"\n"),
    ("YAML", "? name\n: old\n"),
    ("JSON", '{"steps": [{"name": "x"}],\t"name": "old"}'),
    ("JSON", '{\n  "name" : "o\\u00e9d",\n  "a": "\\/"\n}'),
]


@pytest.mark.parametrize(("kind", "text"), TEMPLATES)
@pytest.mark.parametrize("name", ["New", "q\"uo: te'\n#", "{{Param.X}}", "é😀", "yes"])
def test_only_the_name_changes(kind: str, text: str, name: str) -> None:
    before = documents.Document("p", text, kind, documents.parse(text, kind))
    after = documents.renamed(before, name)
    assert documents.parse(after.text, kind) == {**before.data, "name": name} == after.data
    if "#" in text:
        assert after.text.startswith("# top\nname: ") and after.text.endswith("# why\nsteps: [a]\n")
