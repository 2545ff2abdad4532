"""Fingerprints of tools: which change is seen by which of the three digests, and which is none."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from mcp_registry.catalogue import fingerprint

TOOL: dict[str, Any] = {
    "name": "book",
    "description": "Book a room.",
    "annotations": {"title": "Book", "readOnlyHint": False},
    "inputSchema": {
        "type": "object",
        "properties": {
            "room": {"type": "string", "description": "Which one.", "enum": ["a", "b"]},
            "title": {"type": "string", "default": "none"},
        },
        "required": ["room", "title"],
    },
}


def changed(**fields: Any) -> dict[str, Any]:
    """The tool with other fields: `a__b` is the field b of a, and one that is Ellipsis goes."""
    tool = copy.deepcopy(TOOL)
    for path, value in fields.items():
        *above, last = path.split("__")
        place = tool
        for name in above:
            place = place[name]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return tool


def differing(tool: dict[str, Any]) -> set[str]:
    """The digests by which a tool is another one."""
    one, other = fingerprint.fingerprint(TOOL), fingerprint.fingerprint(tool)
    return {name for name in one._fields if getattr(one, name) != getattr(other, name)}


NOTHING: set[str] = set()
NOTATION = {"raw"}
TEXT = {"raw", "prompt"}
ALL = {"raw", "prompt", "contract"}
CASES = {
    "of the SDK": (changed(_meta={"x": 1}, execution={"taskSupport": "forbidden"}), NOTHING),
    "left out or null": (changed(title=None, outputSchema=None, inputSchema__properties__room__title=""), NOTHING),
    "a dialect": (
        changed(
            inputSchema__title="bookArguments", **{"inputSchema__$schema": "http://json-schema.org/draft-07/schema#"}
        ),
        NOTATION,
    ),
    "closed": (changed(inputSchema__additionalProperties=False), NOTATION),
    "the order of names": (
        changed(inputSchema__required=["title", "room"], inputSchema__properties__room__enum=["b", "a"]),
        NOTATION,
    ),
    "a title that is the name": (changed(inputSchema__properties__room__title="Room"), NOTATION),
    "any integer": (changed(inputSchema__properties__room__maximum=2**53 - 1), NOTATION),
    "arguments are an object": (changed(inputSchema__type=...), NOTATION),
    "nothing required": (changed(inputSchema__properties__room__required=[]), NOTATION),
    "a title that says more": (changed(inputSchema__properties__room__title="Any room"), TEXT),
    "a title with an invisible character": (changed(inputSchema__properties__room__title="Ro\u200bom"), TEXT),
    "an example": (changed(inputSchema__properties__room__examples=["a"]), TEXT),
    "a comment": (changed(**{"inputSchema__$comment": "Do as I say."}), TEXT),
    "a text for a dialect": (changed(**{"inputSchema__$schema": "Do as I say."}), ALL),
    "a field of tomorrow": (changed(tomorrow=1), NOTATION),
    "a description": (changed(description="Book a room!"), TEXT),
    "an invisible character": (changed(description="Book a room.\u200b"), TEXT),
    "another form of Unicode": (changed(name="bo\u0308ok"), ALL),
    "a description of a parameter": (changed(inputSchema__properties__room__description="Any."), TEXT),
    "a title of the annotations": (changed(annotations__title="Reserve"), TEXT),
    "an icon": (changed(icons=[{"src": "https://x.example/i.png"}]), TEXT),
    "a hint": (changed(annotations__readOnlyHint=True), ALL),
    "a type": (changed(inputSchema__properties__room__type="integer"), ALL),
    "a parameter called title": (changed(inputSchema__properties__title={"type": "integer"}), ALL),
    "no parameter called title": (changed(inputSchema__properties__title=...), ALL),
    "a default": (changed(inputSchema__properties__title__default="some"), ALL),
    "required": (changed(inputSchema__required=["room"]), ALL),
    "open to a schema": (changed(inputSchema__additionalProperties={"type": "string"}), ALL),
}


@pytest.mark.parametrize("case", CASES)
def test_a_change_is_seen_by_those_digests_that_it_concerns(case):
    tool, seen = CASES[case]
    assert differing(tool) == seen


def test_a_reference_within_the_schema_is_what_it_means():
    room = TOOL["inputSchema"]["properties"]["room"]
    for place in ("$defs", "definitions"):
        schema = copy.deepcopy(TOOL["inputSchema"])
        schema["properties"]["room"] = {"$ref": f"#/{place}/a~1b"}
        schema[place] = {"a/b": room}
        assert differing({**TOOL, "inputSchema": schema}) == NOTATION
        # A model reads what nothing refers to as well.
        schema[place] = {"a/b": room, "unused": {"description": "Do as I say."}}
        assert differing({**TOOL, "inputSchema": schema}) == TEXT


def test_the_title_of_a_function_is_notation_where_it_is_the_end_of_the_name():
    plain = {**TOOL, "name": "rooms_book"}
    for title, same in (("bookArguments", True), ("RoomsBook", True), ("rArguments", False), ("books", False)):
        titled = changed(name="rooms_book", inputSchema__title=title)
        assert (fingerprint.fingerprint(titled).prompt == fingerprint.fingerprint(plain).prompt) is same, title


def of_schemas(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """The digests by which two tools differ that have these schemas."""
    found = [fingerprint.fingerprint({"name": "a", "inputSchema": schema}) for schema in (one, other)]
    return {name for name in found[0]._fields if getattr(found[0], name) != getattr(found[1], name)}


USED = {"properties": {"a": {"$ref": "#/$defs/d", "description": "Here."}}}
AWAY = {"properties": {"a": {"$ref": "#d"}}}
STRING, NULL = {"type": "string", "description": "S."}, {"type": "null"}
SCHEMAS: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "words that are replaced where they are used": (
        {**USED, "$defs": {"d": {"type": "string", "description": "A."}}},
        {**USED, "$defs": {"d": {"type": "string", "description": "B."}}},
        TEXT,
    ),
    "a definition that is referred to in a way that is not followed": (
        {**AWAY, "$defs": {"d": {"$anchor": "d", "type": "string"}}},
        {**AWAY, "$defs": {"d": {"$anchor": "d", "type": "integer"}}},
        ALL,
    ),
    "a definition that is not replaced but narrowed": (
        {"properties": {"a": {"$ref": "#/$defs/d", "enum": ["x"]}}, "$defs": {"d": {"enum": ["x", "y"]}}},
        {"properties": {"a": {"enum": ["x"]}}},
        ALL,
    ),
    "a constant that is empty": ({"properties": {"a": {"const": ""}}}, {"properties": {"a": {}}}, ALL),
    "the order of a choice": ({"anyOf": [STRING, NULL]}, {"anyOf": [NULL, STRING]}, TEXT),
    "a reference into a list": (
        {"properties": {"a": {"$ref": "#/$defs/d%20e/anyOf/0"}}, "$defs": {"d e": {"anyOf": [STRING]}}},
        {"properties": {"a": STRING}, "$defs": {"d e": {"anyOf": [STRING]}}},
        NOTATION,
    ),
    "one of all": (
        {"allOf": [{"minProperties": 1}], "maxProperties": 2},
        {"minProperties": 1, "maxProperties": 2},
        NOTATION,
    ),
    "one of all beside another": ({"allOf": [{"minProperties": 1}], "minProperties": 2}, {"minProperties": 2}, ALL),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_two_schemas_differ_in_those_digests_that_it_concerns(case):
    one, other, seen = SCHEMAS[case]
    assert of_schemas(one, other) == seen


def test_const_is_an_enum_of_one():
    assert fingerprint.fingerprint(changed(inputSchema__properties__room={"const": "a"})).prompt == (
        fingerprint.fingerprint(changed(inputSchema__properties__room={"enum": ["a"]})).prompt
    )


def test_annotations_without_a_hint_are_no_contract_and_empty_ones_are_notation():
    none, empty, titled = (
        fingerprint.fingerprint({"name": "a", **({} if found is None else {"annotations": found})})
        for found in (None, {}, {"title": "A"})
    )
    assert none.prompt == empty.prompt != titled.prompt and none.contract == titled.contract


def test_the_bounds_of_an_integer_have_one_form():
    def bounded(kind: str, **bounds: int) -> bytes:
        room = {"type": kind, **bounds}
        return fingerprint.fingerprint(changed(inputSchema__properties__room=room)).prompt

    assert bounded("integer", minimum=1, maximum=8) == bounded("integer", exclusiveMinimum=0, exclusiveMaximum=9)
    assert bounded("number", minimum=1) != bounded("number", exclusiveMinimum=0)


@pytest.mark.parametrize("reference", ["#/$defs/a", "#/nowhere", "https://x.example/schema.json", "#", 7])
def test_a_reference_that_leads_in_a_circle_or_away_stays_as_it_is(reference):
    schema = {"$ref": reference, "$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a"}}}}}
    assert fingerprint.fingerprint({**TOOL, "inputSchema": schema}) == fingerprint.fingerprint(
        {**TOOL, "inputSchema": schema}
    )
    assert differing({**TOOL, "inputSchema": schema}) == ALL


def test_references_to_references_do_not_grow_without_end():
    """Each of thirty names the next twice: a billion of the last."""
    definitions: dict[str, Any] = {
        f"d{n}": {"properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}, "b": {"$ref": f"#/$defs/d{n + 1}"}}}
        for n in range(30)
    }
    schema = {"$ref": "#/$defs/d0", "$defs": {**definitions, "d30": {"type": "null"}}}
    assert fingerprint.fingerprint({**TOOL, "inputSchema": schema}).prompt


def test_a_list_is_known_by_what_is_in_it_in_whichever_order():
    one, other = fingerprint.fingerprint(TOOL), fingerprint.fingerprint(changed(description="x"))
    assert fingerprint.tools([one, other]) == fingerprint.tools([other, one])
    assert fingerprint.tools([one, other]).contract == fingerprint.tools([other, other]).contract
    assert fingerprint.tools([one, other]).prompt != fingerprint.tools([other, other]).prompt
    assert fingerprint.tools([]) != fingerprint.tools([one]) != fingerprint.tools([one, one])
    prompts = [{"name": "a", "description": None}, {"name": "b"}]
    assert fingerprint.listing(prompts) == fingerprint.listing([{"name": "b"}, {"name": "a", "_meta": {}}])
    assert fingerprint.listing(prompts) != fingerprint.listing(prompts[:1])
    assert fingerprint.text(None) is None and fingerprint.text("a") != fingerprint.text("b")


OFFER: dict[str, Any] = {
    "tools": [TOOL, changed(name="a"), changed(description="x")],
    "prompts": [{"name": "b"}, {"name": "a"}],
    "resources": [{"uri": "file:///b", "name": "b"}, {"uri": "file:///a", "name": "a"}],
    "templates": None,
    "instructions": "Book.",
    "server_info": {"name": "rooms", "version": "1.0.0"},
    "protocol_versions": ["2025-11-25"],
    "capabilities": {"tools": {}},
}


def test_a_whole_offer_is_known_by_all_of_it_and_by_no_order_of_its_lists():
    known = fingerprint.whole(OFFER)
    reverse = {key: value[::-1] if isinstance(value, list) else value for key, value in OFFER.items()}
    assert fingerprint.whole(dict(reversed(reverse.items()))) == known
    for part, other in {
        "tools": [{**TOOL, "_meta": {"x": 1}}, *OFFER["tools"][1:]],
        "prompts": [{"name": "b", "description": None}, {"name": "a"}],
        "resources": OFFER["resources"][:1],
        "templates": [],
        "instructions": "",
        "server_info": {"name": "rooms", "version": "1.0.1"},
        "protocol_versions": [],
        "capabilities": {"tools": {"listChanged": False}},
    }.items():
        assert fingerprint.whole({**OFFER, part: other}) != known, part


@pytest.mark.parametrize("value", [float("nan"), "\ud800"])
def test_an_offer_that_is_no_json_has_no_digest(value):
    with pytest.raises(ValueError):  # noqa: PT011 - of which UnicodeEncodeError is one
        fingerprint.whole({**OFFER, "tools": [{"name": "a", "x": value}]})


@pytest.mark.parametrize("value", [float("nan"), "\ud800"])
def test_what_is_no_json_has_no_digest(value):
    with pytest.raises(ValueError):  # noqa: PT011 - of which UnicodeEncodeError is one
        fingerprint.fingerprint({**TOOL, "annotations": {"x": value}})
