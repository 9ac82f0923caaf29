"""Our YAML text is PyYAML's, whichever way it was written."""

from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from libdeadline import yaml_text

scalars = (
    st.text()
    | st.from_regex(r"[A-Za-z0-9_.:/+() -]{0,90}", fullmatch=True)
    | st.sampled_from(["yes", "NO", "null", "~", "1.5", "1e3", "12:30:45", "2024-01-01", "a: b", "a #b", "", "x:", "-"])
    | st.integers()
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.none()
    | st.datetimes(timezones=st.just(UTC))
)
keys = st.from_regex(r"[a-zA-Z][A-Za-z0-9 ]{0,12}", fullmatch=True)
documents = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


@settings(max_examples=50)
@given(documents)
def test_both_ways_write_the_same(document):
    assert yaml_text.dump(document) == yaml_text._by_pyyaml(yaml_text._with_whole_lines(document))


@settings(max_examples=50)
@given(documents)
def test_it_reads_back(document):
    assert yaml.safe_load(yaml_text.dump(document)) == yaml_text._with_whole_lines(document)


def test_the_forms_of_the_specification():
    when = datetime(2025, 7, 3, 10, 49, 33, 821000, tzinfo=UTC)
    shared = {"a": 1}
    text = yaml_text.dump(
        {
            "at": when,
            "whole": when.replace(microsecond=0),
            "text": "a\nb",
            "name": "café 東京",
            "none": [],
            "empty": "",
            "number": "12",
            "twice": [shared, shared],
        }
    )
    assert text == (
        "at: 2025-07-03 10:49:33.821000+00:00\n"
        "whole: 2025-07-03 10:49:33+00:00\n"
        "text: |\n  a\n  b\n"
        'name: "caf\\xE9 \\u6771\\u4EAC"\n'
        "none: []\n"
        "empty: ''\n"
        "number: '12'\n"
        "twice:\n- a: 1\n- a: 1\n"
    )


def test_plain_answers_do_without_pyyaml():
    pytest.importorskip("yaml")
    import subprocess
    import sys

    program = (
        "import sys; from libdeadline import yaml_text; "
        "yaml_text.dump([{'region': 'us-west-2', 'farmId': 'farm-' + 'a' * 32, 'displayName': 'My Farm (1)'}]); "
        "sys.exit('yaml' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
