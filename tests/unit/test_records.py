"""The codec of records, and streams that are whole or refused."""

import json
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libdeadline.errors import Trouble
from libdeadline.records import KINDS, End, Error, File, Foreign, Job, Record, decode, encode
from libdeadline.stream import Input, Output

names = st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)


@given(path=names, size=st.integers(0, 2**53), extra=st.text())
def test_any_file_name_survives(path: str, size: int, extra: str) -> None:
    row = File.of(path=path, size=size, unknown=extra)
    line = encode(row)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert decode(line) == row
    assert json.loads(line)["type"] == "file"


def test_a_name_that_is_no_utf8_comes_readable_and_exact() -> None:
    row = json.loads(encode(File.of(path=os.fsdecode(b"caf\xe9"))))
    assert row == {"type": "file", "path": "caf\ufffd", "path_b64": "Y2Fm6Q=="}


def test_each_line_becomes_its_kind() -> None:
    for kind, cls in KINDS.items():
        assert type(decode(b'{"type":"%s"}' % kind.encode())) is cls
    assert type(decode(b'{"type":"lens"}')) is Record


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"{}", b'{"type":1}', b'{"type":"file"', b"null", b'"type"'])
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(Trouble) as caught:
        decode(line)
    assert caught.value.status == 65


def test_fields_are_read_as_declared() -> None:
    row = File.of(path="a", size=None)
    assert row.path == "a" and row.size is None and "size" not in row
    with pytest.raises(Trouble, match="job record without 'job_id'"):
        _ = Job({"type": "job"}).job_id


def read_all(data: bytes, *kinds: type[Record], open_ended: bool = False, chunk: int = 1 << 20) -> list[Record]:
    reader, writer = os.pipe()

    def feed() -> None:
        for at in range(0, len(data), chunk):
            os.write(writer, data[at : at + chunk])
        os.close(writer)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        return list(Input(reader, kinds, open_ended=open_ended))
    finally:
        os.close(reader) if thread.join() is None else None


GOOD = b'{"type":"end","tool":"t","ok":true}\n'
BAD = b'{"type":"end","tool":"t","ok":false}\n'
ROW = b'{"type":"file","path":"a"}\n'


@pytest.mark.parametrize("data", [ROW + GOOD, GOOD, ROW + GOOD + ROW + GOOD])
def test_a_whole_stream_ends_quietly(data: bytes) -> None:
    assert len(read_all(data)) == data.count(b'"file"')


@pytest.mark.parametrize(
    "data",
    [b"", ROW, ROW + BAD, ROW + GOOD + ROW, BAD + GOOD, ROW + BAD + ROW + GOOD, ROW + GOOD[:-2], ROW + GOOD + ROW[:9]],
)
def test_a_stream_that_is_not_whole_is_refused(data: bytes) -> None:
    with pytest.raises(Trouble) as caught:
        read_all(data, File)
    assert caught.value.status == 65


def test_open_ended_takes_a_stripped_stream() -> None:
    assert len(read_all(ROW + ROW, open_ended=True)) == 2


def test_foreign_kinds_pass_byte_for_byte_and_in_order() -> None:
    odd = b'{"a":1.50,  "type":"lens", "b":1e3}\n'
    rows = read_all(odd + ROW + b'{"path":"b","type":"file"}\n' + odd + GOOD, File)
    assert [type(row) for row in rows] == [Foreign, File, File, Foreign]
    assert encode(rows[0]) == odd


@given(st.lists(st.text(max_size=300), max_size=60), st.integers(1, 300))
def test_any_chunking_gives_the_same_records(paths: list[str], chunk: int) -> None:
    data = b"".join(encode(File.of(path=path.replace("\0", ""))) for path in paths) + GOOD
    assert [row.path for row in read_all(data, File, chunk=chunk)] == [path.replace("\0", "") for path in paths]


def test_records_leave_within_the_linger_time_while_the_tool_works() -> None:
    reader, writer = os.pipe()
    output = Output(writer)
    output.write(File.of(path="huge"))
    started = time.monotonic()
    assert b"huge" in os.read(reader, 100)
    assert time.monotonic() - started < 5
    output.close()
    os.close(reader)
    os.close(writer)


def test_many_records_share_a_write() -> None:
    reader, writer = os.pipe()
    output = Output(writer)
    for index in range(200):
        output.write(File.of(path=f"file {index}"))
    output.flush()
    assert os.read(reader, 1 << 16).count(b"\n") == 200
    output.close()
    os.close(reader)
    os.close(writer)


def test_a_failed_flush_is_a_failure() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    output = Output(full)
    output.write(End.of(tool="t", ok=True))
    with pytest.raises(OSError):
        output.close()
        output.write(End.of(tool="t", ok=True))
    os.close(full)


@pytest.mark.parametrize("exact", ['"%%%"', '"YQ"', "5", "null", '"\\ud800"'])
def test_an_exact_form_that_is_none_is_no_record(exact: str) -> None:
    with pytest.raises(Trouble):
        decode(b'{"type":"file","path":"a","path_b64":%b}' % exact.encode())


def test_words_of_a_manifest_that_no_file_can_have_can_be_told_of() -> None:
    line = encode(Error.of(message="refused", path="a\ud800b"))
    assert b'"path_b64"' in line and line.decode()
