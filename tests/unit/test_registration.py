"""The rules of a registration, and its two digests."""

import hashlib
import json

import pytest
import rfc8785

from mcp_registry.catalogue import registration
from mcp_registry.errors import ValidationFailed

TOOL = {"name": "forecast", "description": "Tomorrow's weather", "input_schema": {"type": "object"}, "category": "geo"}
MINIMAL = {
    "name": "weather",
    "display_name": "Weather",
    "server_type": "community",
    "endpoint_url": "http://localhost:8080",
}
FULL = {
    **MINIMAL,
    "description": "Forecasts",
    "health_url": "/health",
    "version": "1.0.0",
    "metadata": {
        "author": "Ann",
        "repository_url": "git@github.com:ann/weather.git",
        "documentation_url": "https://docs.example.com/weather#start",
        "tags": ["geo", "geo"],
    },
    "tools": [{**TOOL, "title": "Forecast", "output_schema": {}, "annotations": {"readOnlyHint": True}}],
}


def faults(value: object) -> dict[str, str]:
    """The faults of a value: path to kind."""
    with pytest.raises(ValidationFailed) as refused:
        registration.parse(value)
    assert all(fault.message for fault in refused.value.faults)
    return {fault.path: fault.type for fault in refused.value.faults}


@pytest.mark.parametrize("value", [MINIMAL, FULL])
def test_a_registration_is_accepted(value):
    assert registration.parse(value).document.name == "weather"


@pytest.mark.parametrize("value", [None, True, 1, "x", [], [MINIMAL]])
def test_only_an_object_is_a_registration(value):
    with pytest.raises(ValidationFailed, match="JSON object"):
        registration.parse(value)


def test_every_fault_is_told_with_its_path():
    value = {
        "name": 1,
        "display_name": "",
        "server_type": "Mock",
        "version": "v" * 256,
        "colour": "red",
        "metadata": {"author": "a" * 201, "tags": ["x", None], "licence": "MIT"},
        "tools": [{"name": 2, "id": 1}, "y", {"name": "a", "input_schema": True}, {**TOOL, "category": "c" * 51}],
    }
    assert faults(value) == {
        "colour": "unknown",
        "name": "type",
        "display_name": "length",
        "server_type": "enum",
        "endpoint_url": "missing",
        "version": "length",
        "metadata.licence": "unknown",
        "metadata.author": "length",
        "metadata.tags.1": "type",
        "tools.0.id": "unknown",
        "tools.0.name": "type",
        "tools.0.input_schema": "missing",
        "tools.1": "type",
        "tools.2.input_schema": "type",
        "tools.3.category": "length",
    }


def test_only_the_first_hundred_faults_are_told():
    with pytest.raises(ValidationFailed) as refused:
        registration.parse({f"field-{n}": 1 for n in range(50_000)})
    assert len(refused.value.faults) == 100


def test_faults_are_told_in_words():
    value = {"name": "", "display_name": 1, "server_type": "x", "endpoint_url": {}, "version": True, "tools": {}}
    with pytest.raises(ValidationFailed) as refused:
        registration.parse(value)
    assert {fault.path: fault.message for fault in refused.value.faults} == {
        "name": "Must have at least 1 character",
        "display_name": "Expected a string, got a number",
        "server_type": "Must be one of official, community, mock",
        "endpoint_url": "Expected a string, got an object",
        "version": "Expected a string, got true or false",
        "tools": "Expected an array, got an object",
    }


def test_what_types_cannot_say_is_told_in_one_go_too():
    value = {
        **MINIMAL,
        "name": "a b",
        "endpoint_url": "ftp://example.com",
        "metadata": {"repository_url": "javascript:alert(1)", "documentation_url": "//x"},
        "tools": [TOOL, TOOL],
    }
    assert faults(value) == {
        "name": "value",
        "endpoint_url": "value",
        "metadata.repository_url": "value",
        "metadata.documentation_url": "value",
        "tools.1.name": "repeated",
    }


def test_a_health_url_has_a_port_of_its_own_and_not_one_that_is_closed():
    registration.parse(
        {**MINIMAL, "endpoint_url": "https://example.com/mcp", "health_url": "http://example.com:8081/h"}
    )
    closed = {"endpoint_url": "https://example.com/mcp", "health_url": "http://example.com:5432/h"}
    assert faults({**MINIMAL, **closed}) == {"health_url": "blocked"}
    assert faults({**MINIMAL, **closed, "endpoint_url": "nowhere"}) == {"endpoint_url": "value"}


@pytest.mark.parametrize("field", ["description", "version", "metadata", "tools", "health_url"])
def test_null_is_as_good_as_absent(field):
    absent = registration.parse({key: value for key, value in FULL.items() if key != field})
    null = registration.parse({**FULL, field: None})
    assert null.offer_digest == absent.offer_digest


@pytest.mark.parametrize("value", [{}, [], False, 0])
def test_empty_is_not_null(value):
    for field in ("health_url", "description", "version"):
        assert faults({**MINIMAL, field: value}) == {field: "type"}


@pytest.mark.parametrize("field", ["name", "display_name", "server_type", "endpoint_url"])
def test_null_does_not_stand_for_a_required_field(field):
    assert faults({**MINIMAL, field: None}) == {field: "missing"}


def test_a_tool_needs_a_name_and_a_schema_only():
    parsed = registration.parse({**MINIMAL, "tools": [{"name": "t", "input_schema": {}, "description": None}]})
    assert json.loads(parsed.tools_json) == [{"name": "t", "input_schema": {}, "position": 0}]


def test_empty_texts_are_kept_and_empty_links_are_absent():
    parsed = registration.parse({**MINIMAL, "version": "", "description": "", "metadata": {"repository_url": ""}})
    assert parsed.document.version == parsed.document.description == ""
    assert parsed.document.metadata is not None and parsed.document.metadata.repository_url is None


def test_the_spelling_of_mcp_is_taken_too():
    parsed = registration.parse(
        {**MINIMAL, "tools": [{"name": "t", "inputSchema": {"a": 1}, "outputSchema": {"b": 2}}]}
    )
    tool = parsed.document.tools[0]
    assert (tool.input_schema, tool.output_schema) == ({"a": 1}, {"b": 2})


def test_both_spellings_at_once_are_refused():
    assert faults({**MINIMAL, "tools": [{**TOOL, "inputSchema": {}}]}) == {"tools.0.inputSchema": "repeated"}


def test_what_mcp_says_of_a_tool_besides_our_columns_is_kept_as_it_was_sent():
    more = {
        "_meta": {"b": 1, "a": None},
        "icons": [{"src": "x"}],
        "execution": {},
        "null": None,
        "extra": 1,
        "position": 9,
    }
    parsed = registration.parse({**MINIMAL, "tools": [{**TOOL, **more}]})
    (stored,) = json.loads(parsed.tools_json)
    assert list(stored.pop("extra").items()) == list(more.items())
    assert stored == {**TOOL, "position": 0}


@pytest.mark.parametrize("field", ["id", "created_at"])
def test_what_the_registry_says_of_a_tool_cannot_be_sent(field):
    assert faults({**MINIMAL, "tools": [TOOL, {**TOOL, "name": "b", field: 1}]}) == {f"tools.1.{field}": "unknown"}


def test_another_field_besides_our_columns_is_another_content():
    one, two = (registration.parse({**MINIMAL, "tools": [{**TOOL, "_meta": {"a": n}}]}) for n in (1, 2))
    assert one.offer_digest != two.offer_digest


def test_a_number_is_no_name_for_a_new_server():
    parsed = registration.parse({**MINIMAL, "name": "2048"})
    with pytest.raises(ValidationFailed) as refused:
        parsed.check_new()
    assert [fault.path for fault in refused.value.faults] == ["name"]
    registration.parse(MINIMAL).check_new()


def nested(levels: int) -> dict:
    schema: dict = {}
    for _ in range(levels - 1):
        schema = {"a": schema}
    return schema


@pytest.mark.parametrize("field", ["input_schema", "output_schema", "annotations", "_meta"])
def test_a_schema_has_at_most_64_levels(field):
    registration.parse({**MINIMAL, "tools": [{**TOOL, field: nested(64)}]})
    assert faults({**MINIMAL, "tools": [{**TOOL, field: nested(65)}]}) == {f"tools.0.{field}": "depth"}


@pytest.mark.parametrize("field", ["input_schema", "_meta"])
def test_a_schema_has_at_most_256_kibibytes(field):
    longest = {"a": "é" * (128 * 1024 - 4)}  # 2 bytes each, and {"a":""} around them
    registration.parse({**MINIMAL, "tools": [{**TOOL, field: longest}]})
    longer = {"a": longest["a"] + "é"}
    assert faults({**MINIMAL, "tools": [{**TOOL, field: longer}]}) == {f"tools.0.{field}": "length"}


def test_a_tools_description_has_at_most_64_kibibytes():
    registration.parse({**MINIMAL, "tools": [{**TOOL, "description": "é" * 32_768}]})
    value = {**MINIMAL, "tools": [{**TOOL, "description": "é" * 32_769}]}
    assert faults(value) == {"tools.0.description": "length"}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": "n" * 101}, "name"),
        ({"display_name": "😀" * 201}, "display_name"),
        ({"endpoint_url": "http://example.com/" + "a" * 2_030}, "endpoint_url"),
        ({"tools": [{**TOOL, "name": ""}]}, "tools.0.name"),
        ({"tools": [{**TOOL, "name": "n" * 129}]}, "tools.0.name"),
        ({"tools": [{**TOOL, "name": f"t{i}"} for i in range(2_001)]}, "tools"),
        ({"metadata": {"tags": ["t"] * 65}}, "metadata.tags"),
        ({"metadata": {"tags": ["x", "t" * 65]}}, "metadata.tags.1"),
    ],
)
def test_lengths_are_limited(change, path):
    assert faults({**MINIMAL, **change}) == {path: "length"}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "n" * 100},
        {"display_name": "😀" * 200},
        {"endpoint_url": "http://example.com/" + "a" * 2_029},
        {"tools": [{**TOOL, "name": "n" * 128}]},
        {"tools": [{**TOOL, "name": f"t{i}"} for i in range(2_000)]},
        {"metadata": {"tags": ["t" * 64] * 64}},
    ],
)
def test_lengths_up_to_the_limit_are_accepted(change):
    registration.parse({**MINIMAL, **change})


def test_the_body_digest_is_what_a_client_can_compute():
    sent = {**FULL, "description": None}
    assert registration.parse(sent).body_digest == hashlib.sha256(rfc8785.dumps(sent)).digest()


def test_the_offer_digest_knows_no_address():
    one, two = (
        registration.parse({**MINIMAL, "endpoint_url": f"http://localhost:{port}", "health_url": health})
        for port, health in ((8081, None), (8082, "/up"))
    )
    assert one.offer_digest == two.offer_digest


def test_the_offer_digest_knows_no_spelling_and_no_order_of_tools():
    other = {**TOOL, "name": "other"}
    alias = {
        "name": "other",
        "inputSchema": TOOL["input_schema"],
        "description": TOOL["description"],
        "category": "geo",
    }
    one = registration.parse({**MINIMAL, "tools": [TOOL, other]})
    two = registration.parse({**MINIMAL, "version": None, "tools": [{**alias, "title": None}, TOOL]})
    assert one.body_digest != two.body_digest
    assert one.offer_digest == two.offer_digest


@pytest.mark.parametrize(
    "change", [{"version": "2"}, {"metadata": {}}, {"tools": []}, {"display_name": "W"}, {"description": ""}]
)
def test_another_content_has_another_digest(change):
    assert registration.parse({**FULL, **change}).offer_digest != registration.parse(FULL).offer_digest


def test_a_change_is_a_status_and_nothing_else():
    assert registration.parse_change({"status": "inactive"}).status == "inactive"
    for value in ({}, [], None, {"status": "error"}, {"status": None}, {"status": "active", "name": "x"}):
        with pytest.raises(ValidationFailed):
            registration.parse_change(value)


@pytest.mark.parametrize("header", ["", "59", "3601", "60000", "-60", "6e2", " 600", "600\n", "٦٠٠"])
def test_a_lease_header_is_a_minute_to_an_hour_in_seconds(header):
    with pytest.raises(ValidationFailed):
        registration.parse_lease(header)
    assert [registration.parse_lease(text) for text in (None, "60", "3600")] == [None, 60, 3600]


@pytest.mark.parametrize("header", ["", "00", "zz" * 32, "00" * 33, "0" * 63, "00" * 32 + "\n"])
def test_a_digest_header_is_64_hexadecimal_digits(header):
    with pytest.raises(ValidationFailed):
        registration.parse_digest(header)
