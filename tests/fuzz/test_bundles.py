"""Bundles made of anything: each is read or refused in one line, and never a bug."""

import contextlib
import json
from pathlib import Path
from typing import Any

from dl_tools.dl_bundle import documents, parameters
from dl_tools.dl_bundle.values import resolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libdeadline.errors import Trouble

KEYS = [
    "name", "type", "default", "value", "dataFlow", "objectType", "minValue", "maxValue", "minLength", "maxLength",
    "allowedValues", "item", "parameterValues", "parameterDefinitions", "assetReferences", "inputs", "outputs",
    "filenames", "directories", "referencedPaths", "specificationVersion", "steps",
]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-10, 10**25)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [*parameters.MEMBERS, "IN", "OUT", "NONE", "FILE", "P", "Q", "deadline:priority", "x:y", "..", "/"]
    )
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
)
definitions = st.fixed_dictionaries(
    {"name": st.sampled_from(["P", "Q", "R"]), "type": st.sampled_from(sorted(parameters.MEMBERS))},
    optional={
        "default": values,
        "minValue": scalars,
        "maxValue": scalars,
        "minLength": scalars,
        "maxLength": scalars,
        "allowedValues": st.lists(scalars, max_size=3) | scalars,
        "item": values,
        "dataFlow": st.sampled_from(["IN", "OUT", "INOUT", "NONE"]),
        "objectType": st.sampled_from(["FILE", "DIRECTORY"]),
    },
)
rows = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["P", "Q", "deadline:priority", "x:y"]), "value": values}),
    max_size=4,
)
quiet = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quiet
@given(st.lists(definitions, max_size=4) | values, rows | values)
def test_parameters_of_any_shape(tmp_path: Path, found: Any, stored: Any) -> None:
    with contextlib.suppress(Trouble):
        defined = parameters.definitions(found, "template")
        given_values = parameters.from_file({"parameterValues": stored}, "file")
        parameters.job_fields(given_values, "file")
        result = resolve(str(tmp_path), parameters.merged(defined, [("Queue", defined)]), given_values, {})
        json.dumps(result.sent)
        assert all(isinstance(path, str) for paths in result.lists.values() for path in paths)


@settings(max_examples=1000, deadline=None)
@given(definitions, scalars | st.lists(scalars, max_size=3) | st.lists(st.lists(scalars, max_size=2), max_size=2))
def test_values_of_any_shape(definition: Any, value: Any) -> None:
    with contextlib.suppress(Trouble):
        (known,) = parameters.definitions([definition], "template").values()
        json.dumps(parameters.checked("P", known, value))


@quiet
@given(st.sampled_from(["template", "asset_references", "parameter_values"]), st.sampled_from(["yaml", "json"]), values)
def test_documents_of_any_shape(tmp_path: Path, stem: str, end: str, data: Any) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / f"{stem}.{end}").write_text(json.dumps(data))
    with contextlib.suppress(Trouble):
        if stem == "template":
            documents.template(str(tmp_path))
        elif stem == "asset_references":
            lists = documents.asset_references(str(tmp_path))
            assert all(isinstance(path, str) and path for paths in lists.values() for path in paths)
        else:
            document = documents.read(str(tmp_path), stem)
            assert document is not None
            parameters.from_file(document.data, document.path)


@quiet
@given(st.sampled_from(["yaml", "json"]), st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_documents_of_any_bytes(tmp_path: Path, end: str, data: bytes) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / f"template.{end}").write_bytes(data)
    with contextlib.suppress(Trouble):
        documents.template(str(tmp_path))
