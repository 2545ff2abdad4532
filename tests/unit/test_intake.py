"""Reading a body: JSON in UTF-8 and nothing else."""

import json
import tracemalloc
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_registry.edge import intake
from mcp_registry.edge.http import Request
from mcp_registry.errors import Fault, PayloadTooLarge, UnsupportedMediaType, ValidationFailed

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


JSON = {"Content-Type": "application/json"}


def request(body: str | bytes | None, headers: dict[str, str] = JSON, *, flag: bool | None = None) -> Request:
    is_bytes = isinstance(body, bytes)
    return Request(
        {
            "httpMethod": "POST",
            "resource": "/",
            "requestContext": {"requestId": "test"},
            "headers": headers,
            "body": b64encode(body).decode() if is_bytes else body,
            "isBase64Encoded": is_bytes if flag is None else flag,
        }
    )


@given(VALUES, st.booleans())
def test_json_comes_in_unchanged(value, ascii_only):
    assert intake.parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b"{}{}", "Extra data (line 1, column 3)"),
        (b'{"a"\n 1}', "Expecting ':' delimiter (line 2, column 2)"),
        (b"\xff\xfe{", "the body is not UTF-8 (byte 0)"),
        (b'{"a": "\xed\xa0\x80"}', "the body is not UTF-8 (byte 7)"),
        (b"\xef\xbb\xbf{}", "Unexpected UTF-8 BOM (decode using utf-8-sig) (line 1, column 1)"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1e400}', "a number is too large"),
        (b'{"a": -1e400}', "a number is too large"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice in one object"),
        (b'{"KEY": 1, "KEY": 1}'.replace(b"KEY", b"k" * 101), f"the key '{'k' * 100}' stands twice in one object"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "a number has too many digits"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_the_reason(body, says):
    with pytest.raises(ValidationFailed) as refused:
        intake.parse(body)
    assert str(refused.value) == f"Invalid JSON: {says}"
    assert refused.value.faults == ()


def test_a_comma_before_the_end_is_refused_with_its_place():
    with pytest.raises(ValidationFailed, match=r"^Invalid JSON: .+ \(line 1, column [89]\)$"):
        intake.parse(b'{"a": 1,}')  # in the words of this version of Python


ESCAPES = ["\\u0000", "\\ud83d", "\\udc00", "\\uDBFF", "\\uD800", "\\udfff", "\\uDC0F"]


@pytest.mark.parametrize("escape", ESCAPES)
def test_nul_and_half_surrogates_are_refused_where_they_stand(escape):
    body = f'{{"a": [1, {{"b": "x{escape}"}}], "{escape}": 1, "c": "\\ud83d\\ude00"}}'
    with pytest.raises(ValidationFailed) as refused:
        intake.parse(body.encode())
    assert refused.value.faults == (
        Fault("", "A key holds NUL or half a surrogate pair", "text"),
        Fault("a.1.b", "Holds NUL or half a surrogate pair", "text"),
    )


def test_a_duplicate_among_many_keys_is_found_in_one_pass():
    body = "{" + "".join(f'"k{n}":1,' for n in range(60_000)) + '"k59999":1}'
    with pytest.raises(ValidationFailed, match="'k59999' stands twice"):
        intake.parse(body.encode())  # comparing each with each would take minutes


def test_only_the_first_hundred_faults_are_told_and_long_paths_are_cut():
    with pytest.raises(ValidationFailed) as refused:
        intake.parse(b'{"' + b"k" * 5_000 + b'": [' + b",".join([b'"\\u0000"'] * 1_000) + b"]}")
    assert len(refused.value.faults) == 100
    assert max(len(fault.path) for fault in refused.value.faults) == 200


def test_a_long_key_over_many_values_does_not_fill_the_memory():
    body = b'{"' + b"k" * 400_000 + b'": [' + b"[]," * 150_000 + b'"\\u0000"]}'
    with pytest.raises(ValidationFailed) as refused:
        intake.parse(body)  # with whole paths: 60 GB
    assert [len(fault.path) for fault in refused.value.faults] == [200]


@pytest.mark.parametrize("path", ["", "a", "p" * 200])
def test_a_long_key_is_cut_before_it_is_copied(path):
    key = "k" * 1_000_000
    tracemalloc.start()
    try:
        joined = intake._join(path, key)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Half a megabyte copied for each of 170,000 empty lists under one key, which fit a body, takes 5 s (2026-11-22).
    assert len(joined) == 200
    assert most < 10_000


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_text_alone_is_checked_too_and_is_one_fault(escape):
    with pytest.raises(ValidationFailed) as refused:
        intake.parse(f'"{escape} {escape}"'.encode())
    assert refused.value.faults == (Fault("", "Holds NUL or half a surrogate pair", "text"),)


def test_an_escaped_backslash_before_u0000_is_an_ordinary_text():
    assert intake.parse(rb'"\\u0000"') == "\\u0000"


@pytest.mark.parametrize("media_type", ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8"])
def test_a_body_is_taken_that_is_said_to_be_json(media_type):
    assert intake.read_json(request("{}", {"Content-Type": media_type})) == {}


@pytest.mark.parametrize("headers", [{}, {"Content-Type": ""}, {"Content-Type": " ; charset=utf-8"}])
def test_a_body_that_is_said_to_be_nothing_is_not_taken_and_none_is_told_so(headers):
    with pytest.raises(UnsupportedMediaType):
        intake.read_json(request("{}", headers))
    for nothing in ("", None):
        with pytest.raises(ValidationFailed, match="the body is empty"):
            intake.read_json(request(nothing, headers))


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_a_body_without_a_content_encoding_may_say_so(encoding):
    assert intake.read_json(request("{}", JSON | {"Content-Encoding": encoding})) == {}


def test_a_content_encoding_is_refused_by_its_name():
    with pytest.raises(UnsupportedMediaType, match=r"^Send the body without Content-Encoding$"):
        intake.read_json(request("{}", JSON | {"Content-Encoding": "br"}))


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/vnd.api+json"},
        {"content-type": "text/plain"},
        JSON | {"content-encoding": "gzip"},
    ],
)
def test_other_media_types_and_encodings_are_refused(headers):
    with pytest.raises(UnsupportedMediaType):
        intake.read_json(request("{}", headers))


def test_a_body_of_exactly_one_mebibyte_is_read_and_one_byte_more_is_not():
    assert intake.MAX_BODY == 1_048_576
    longest = b'"' + b"a" * (intake.MAX_BODY - 2) + b'"'
    assert len(intake.read_json(request(longest))) == intake.MAX_BODY - 2
    with pytest.raises(PayloadTooLarge):
        intake.read_json(request(longest + b" "))


@pytest.mark.parametrize("body", ["{not base64}", "e30", "e30=\n"])
def test_a_body_that_is_not_the_base64_it_claims_to_be_is_refused(body):
    with pytest.raises(ValidationFailed, match=r"^The body is not the base64 that it is said to be$"):
        intake.read_json(request(body, flag=True))
