"""Grades: which change of an offer is graded as what, and that no input makes a comparison fail or go on and on."""

from __future__ import annotations

import copy
import json
import random
import sys
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mcp_registry.catalogue import fingerprint
from mcp_registry.ledger import grades
from mcp_registry.ledger.grades import GRADES, Change, Offer
from tests.conftest import ROOT

EMPTY = Offer([], [], [], [], None, {"name": "bank", "version": "1"}, ["2025-11-25"], {"tools": {}})
INPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "to": {"type": "string", "description": "To whom.", "minLength": 2},
        "amount": {"type": "integer", "minimum": 1, "maximum": 9},
        "currency": {"enum": ["EUR", "USD"], "default": "EUR"},
    },
    "required": ["to"],
}
OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "state": {"enum": ["done", "open"]}},
    "required": ["id"],
}
TOOL: dict[str, Any] = {
    "name": "pay",
    "title": "Pay",
    "description": "Pay somebody. See https://bank.example/help.",
    "annotations": {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False},
    "inputSchema": INPUT,
    "outputSchema": OUTPUT,
}


def changed(path: str, value: Any, tool: dict[str, Any] = TOOL) -> dict[str, Any]:
    """The tool with another value in one place; one that is Ellipsis goes."""
    tool = copy.deepcopy(tool)
    *above, last = path.split("/")
    place = tool
    for name in above:
        place = place.setdefault(name, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return tool


def graded(before: Offer, after: Offer, **options: Any) -> list[tuple[str, str]]:
    """The grade of each change, with all that is said of it."""
    return [(change.grade, "; ".join(change.reasons)) for change in grades.compare(before, after, **options)]


def tool_change(before: dict[str, Any], after: dict[str, Any]) -> Change:
    (change,) = grades.compare(EMPTY._replace(tools=[before]), EMPTY._replace(tools=[after]))
    return change


IN, OUT, HINTS = "inputSchema/properties/", "outputSchema/properties/", "annotations/"
# What is another one afterwards, its grade, and what is said of it. With the direction turned the second pair holds.
RULES: dict[str, tuple[str, Any, str, str, str, str]] = {
    "a dialect": ("inputSchema/$schema", "http://json-schema.org/draft-07/schema#", "notation", "notation", "", ""),
    "no further parameters": ("inputSchema/additionalProperties", False, "notation", "notation", "", ""),
    "_meta": ("_meta", {"a": 1}, "notation", "notation", "Only the notation has changed", ""),
    "execution": ("execution", {"taskSupport": "optional"}, "notation", "notation", "", ""),
    "a title": ("title", "Give", "text", "text", "The title has changed", ""),
    "icons": ("icons", [{"src": "https://new.example/a.png"}], "text", "text", "The icons have changed", ""),
    "words of a parameter": (IN + "to/description", "Who.", "text", "text", "The words of the parameter to", ""),
    "words of a field": (OUT + "id/description", "Which.", "text", "text", "The words of the field id", ""),
    "an optional parameter": (
        IN + "note",
        {"type": "string"},
        "compatible",
        "breaking",
        "The parameter note is new",
        "The parameter note is gone",
    ),
    "a type more": (IN + "to/type", ["string", "integer"], "compatible", "breaking", "takes more types", "fewer types"),
    "a type for another": (IN + "to/type", "boolean", "breaking", "breaking", "is of another type", ""),
    "number for integer": (IN + "amount/type", "number", "compatible", "breaking", "takes more types", ""),
    "a value more": (
        IN + "currency/enum",
        ["EUR", "USD", "CHF"],
        "compatible",
        "breaking",
        "takes more values",
        "fewer",
    ),
    "other values": (IN + "currency/enum", ["EUR", "CHF"], "breaking", "breaking", "takes other values", ""),
    "any value": (IN + "currency/enum", ..., "compatible", "breaking", "takes more values", "takes fewer values"),
    "a lower minimum": (
        IN + "amount/minimum",
        0,
        "compatible",
        "breaking",
        "a wider bound (minimum)",
        "a tighter bound",
    ),
    "a higher maximum": (IN + "amount/maximum", 10, "compatible", "breaking", "a wider bound (maximum)", ""),
    "no minimum": (IN + "amount/minimum", ..., "compatible", "breaking", "a wider bound", "a tighter bound"),
    "a longer minimum": (IN + "to/minLength", 3, "breaking", "compatible", "a tighter bound (minLength)", ""),
    "required": (
        "inputSchema/required",
        ["amount", "to"],
        "breaking",
        "compatible",
        "amount is required now",
        "optional",
    ),
    "a pattern": (IN + "to/pattern", "^a", "breaking", "compatible", "a condition more (pattern)", "a condition less"),
    "a format": (IN + "to/format", "email", "breaking", "compatible", "a condition more (format)", ""),
    "another default": (IN + "currency/default", "USD", "compatible", "compatible", "has another default", ""),
    "a choice": (
        IN + "to",
        {"anyOf": [{"type": "string", "minLength": 2}, {"type": "null"}], "description": "To whom."},
        "compatible",
        "breaking",
        "The parameter to takes more than before",
        "The parameter to takes less than before",
    ),
    "all of": (IN + "to/allOf", [{"minLength": 3}, {"maxLength": 4}], "breaking", "compatible", "less", "more"),
    "a closing": ("inputSchema/unevaluatedProperties", False, "breaking", "compatible", "takes no value", ""),
    "a closing by a schema": (
        "inputSchema/additionalProperties",
        {"type": "string"},
        "breaking",
        "breaking",
        "may refuse what was right (additionalProperties)",
        "",
    ),
    "a word of tomorrow": (IN + "to/x-unit", "person", "compatible", "compatible", "another annotation (x-unit)", ""),
    "a field more": (OUT + "fee", {"type": "integer"}, "compatible", "breaking", "The field fee is new", "is gone"),
    "an answer more": (OUT + "state/enum", ["done", "open", "lost"], "breaking", "compatible", "takes more values", ""),
    "a field always there": ("outputSchema/required", ["id", "state"], "compatible", "breaking", "required now", ""),
    "no output schema": ("outputSchema", ..., "breaking", "compatible", "no schema any more", "has a schema now"),
    "no input schema": ("inputSchema", ..., "compatible", "breaking", "no schema any more", "has a schema now"),
    "writing": (HINTS + "readOnlyHint", False, "alarming", "compatible", "not read-only any more", "Its annotations"),
    "unknown whether it writes": (HINTS + "readOnlyHint", ..., "alarming", "compatible", "not read-only any more", ""),
    "a word for true": (HINTS + "readOnlyHint", "true", "alarming", "compatible", "not read-only any more", ""),
    "destroying": (HINTS + "destructiveHint", True, "alarming", "compatible", "may destroy something now", ""),
    "unknown whether it destroys": (HINTS + "destructiveHint", ..., "alarming", "compatible", "may destroy", ""),
    "not to be repeated": (HINTS + "idempotentHint", ..., "breaking", "compatible", "not be repeated", ""),
    "reaching out": (HINTS + "openWorldHint", True, "alarming", "compatible", "beyond its own system", ""),
    "a hint of tomorrow": (HINTS + "cost", 1, "compatible", "compatible", "Its annotations have changed", ""),
    "a title of the annotations": (HINTS + "title", "Pay!", "text", "text", "The title of its annotations", ""),
    "an invisible character": (IN + "to/description", "To\u200b whom.", "alarming", "text", "U+200B", ""),
    "a bidirectional one": ("title", "Pay\u202e", "alarming", "text", "a bidirectional character now, U+202E", ""),
    "an escape": ("description", "\x1b[8mPay", "alarming", "alarming", "an escape or control", "bank.example"),
    "tags": ("title", "Pay\U000e0041", "alarming", "text", "an invisible character now, U+E0041", ""),
    "one in a name": (IN + "a\u2060b", {}, "alarming", "breaking", "U+2060", 'The parameter "a\\u2060b" is gone'),
    "one in an example": (IN + "to/examples", ["\ufeff"], "alarming", "text", "U+FEFF", ""),
    "one in a title": (IN + "to/title", "t\u00ado", "alarming", "text", "U+00AD", ""),
    "one in an unused definition": ("inputSchema/$defs", {"a": {"title": "\u200b"}}, "alarming", "text", "U+200B", ""),
    "an emoji is none": ("title", "Pay \u2764\ufe0f \U0001f468\u200d\U0001f469", "text", "text", "The title", ""),
    "a URL": (IN + "to/description", "See HTTPS://u@Evil.example:1/x.", "alarming", "text", "before: evil.example", ""),
    "a URL without a scheme": ("title", "www.evil.example", "alarming", "text", "evil.example", ""),
    "a URL of a host that is known": (IN + "to/description", "See http://bank.example/to.", "text", "text", "", ""),
}


@pytest.mark.parametrize("case", RULES)
def test_a_change_of_a_tool_has_its_grade_both_ways(case):
    path, value, there, back, words, words_back = RULES[case]
    other = changed(path, value)
    change, reverse = tool_change(TOOL, other), tool_change(other, TOOL)
    assert (change.kind, change.subject) == ("tool", "pay")
    assert (change.grade, reverse.grade) == (there, back), (change.reasons, reverse.reasons)
    assert words in "; ".join(change.reasons) and words_back in "; ".join(reverse.reasons)
    assert all(reason.isascii() and reason.isprintable() for reason in (*change.reasons, *reverse.reasons))


@pytest.mark.parametrize("before", [..., "false", True], ids=["nothing said", "no boolean", "said already"])
def test_to_say_what_silence_means_already_is_no_alarm(before):
    """`destructiveHint` is true where it is absent, says the specification: honest authors who add it lose nothing."""
    one = changed(HINTS + "destructiveHint", before, changed(HINTS + "readOnlyHint", False))
    change = tool_change(one, changed(HINTS + "destructiveHint", True, changed(HINTS + "cost", 1, one)))
    told = () if before is True else ("It says that it may destroy something, and did not say so before",)
    assert (change.grade, change.reasons) == ("compatible", (*told, "Its annotations have changed"))


def test_a_new_parameter_that_is_required_breaks_and_names_it_by_its_path():
    inner = {"type": "object", "properties": {"street": {"type": "string"}}}
    before = changed(IN + "where", {"type": "array", "items": inner})
    after = changed("inputSchema/properties/where/items/properties/town", {"type": "string"}, before)
    after["inputSchema"]["properties"]["where"]["items"]["required"] = ["town"]
    change = tool_change(before, after)
    assert (change.grade, change.reasons) == ("breaking", ("The parameter where[].town is new and required",))


def test_tools_that_come_and_go_are_told_by_their_title_and_description():
    one = EMPTY._replace(tools=[TOOL])
    told = {"title": "Pay", "description": TOOL["description"]}
    assert grades.compare(EMPTY, one) == [
        Change(
            *("tool", "pay", "compatible", None, told),
            ("The tool is new", "It names a host that was not named before: bank.example"),
        )
    ]
    assert grades.compare(one, EMPTY) == [Change("tool", "pay", "breaking", told, None, ("The tool is gone",))]


def test_a_new_tool_is_looked_at_for_its_characters_and_its_name():
    hidden = EMPTY._replace(tools=[changed("inputSchema/description", "\u200d")])
    assert [grade for grade, _ in graded(EMPTY, hidden)] == ["alarming"]
    plain = EMPTY._replace(tools=[TOOL])
    ((grade, reasons),) = graded(EMPTY, plain, elsewhere="pay".__eq__)
    assert grade == "alarming" and "Another server has had a tool of this name" in reasons
    # Who had the name before is asked of what is new only.
    assert graded(plain, plain._replace(tools=[changed("title", "x")]), elsewhere="pay".__eq__) == [
        ("text", "The title has changed")
    ]


def test_a_second_tool_or_prompt_of_a_name_may_stand_before_the_first():
    """A client that goes by the name takes the one or the other: what is new may be what is called from now on."""
    told = [("breaking", "There was another one of this name already; The tool is new")]
    tools = EMPTY._replace(tools=[TOOL])
    assert graded(tools, tools._replace(tools=[TOOL, changed("title", "Give")])) == told
    assert graded(EMPTY, EMPTY._replace(tools=[TOOL, changed("title", "Give")]))[1][0] == "compatible"
    prompt = {"name": "greet", "description": "Greets."}
    prompts = EMPTY._replace(prompts=[prompt])
    ((grade, _),) = graded(prompts, prompts._replace(prompts=[{**prompt, "description": "Insults."}, prompt]))
    assert grade == "breaking"


def test_a_character_that_was_there_is_none_that_is_new_but_one_more_is():
    before = changed("title", "Pay\u200b")
    assert tool_change(before, changed("title", "\u200bGive")).grade == "text"
    assert tool_change(before, changed("title", "Pay\u200b\u200b")).grade == "alarming"


def test_a_host_that_another_tool_named_is_none_that_is_new():
    other = {"name": "other", "description": "a"}
    before = EMPTY._replace(tools=[TOOL, other])
    after = EMPTY._replace(tools=[TOOL, {**other, "description": "https://bank.example"}])
    assert graded(before, after) == [("text", "The description has changed")]


def test_what_is_a_choice_now_is_compared_as_one_of_its_alternatives_only():
    change = tool_change(TOOL, changed(IN + "amount", {"anyOf": [INPUT["properties"]["amount"], {"type": "null"}]}))
    assert change.reasons == ("The parameter amount takes more than before",)


def test_what_has_no_form_is_taken_for_a_change_that_breaks():
    one, other = ({"name": "a", "inputSchema": {"properties": [name], "default": name}} for name in "ab")
    assert "no rule knows (properties)" in tool_change(one, other).reasons[0]


def test_a_list_that_is_not_known_is_compared_with_nothing():
    full = EMPTY._replace(tools=[TOOL], prompts=[{"name": "a"}], resources=[{"uri": "a:"}])
    for part in ("tools", "prompts", "resources", "templates"):
        assert [c.kind for c in grades.compare(full._replace(**{part: None}), full)] == []
        assert [c.kind for c in grades.compare(full, full._replace(**{part: None}))] == []


def test_what_is_told_holds_what_differs_and_is_bounded():
    other = changed("description", "x" * 3_000)
    other["_meta"] = {"a": 1}
    other["inputSchema"]["$schema"] = "http://json-schema.org/draft-07/schema#"
    change = tool_change(TOOL, other)
    assert change.before == {"description": TOOL["description"]}
    assert change.after == {"description": "x" * 2_000 + " (cut here, of 3,000 characters)", "_meta": {"a": 1}}
    big = tool_change(TOOL, changed(IN + "to/enum", [f"{n:0100}" for n in range(1_000)]))
    assert big.before == {"inputSchema": INPUT}
    assert big.after is not None and "left out" in big.after["inputSchema"]
    many = tool_change(TOOL, changed("inputSchema/properties", {f"p{n}": {} for n in range(100)}))
    assert len(many.reasons) == grades.MAX_REASONS + 1 and many.reasons[-1] == "There are 83 more changes"
    assert many.reasons[0] == "The parameter amount is gone" and len(json.dumps(many)) < 20_000


PROMPT = {"name": "ask", "description": "Ask.", "arguments": [{"name": "a", "required": True}, {"name": "b"}]}
PROMPTS = {
    "words": ({"description": "Do."}, "text", "The description has changed"),
    "an argument more": ({"arguments": [*PROMPT["arguments"], {"name": "c"}]}, "compatible", "The argument c is new"),
    "one that is required": (
        {"arguments": [*PROMPT["arguments"], {"name": "c", "required": True}]},
        "breaking",
        "c is new and required",
    ),
    "required now": (
        {"arguments": [PROMPT["arguments"][0], {"name": "b", "required": True}]},
        "breaking",
        "The argument b is required now",
    ),
    "optional now": ({"arguments": [{"name": "a"}, {"name": "b"}]}, "compatible", "The argument a is optional now"),
    "an argument less": ({"arguments": PROMPT["arguments"][:1]}, "breaking", "The argument b is gone"),
    "words of an argument": (
        {"arguments": [PROMPT["arguments"][0], {"name": "b", "description": "B."}]},
        "text",
        "The words of the argument b have changed",
    ),
    "left out or null": ({"title": None}, "notation", "Only the notation has changed"),
    "an invisible character": ({"description": "Ask.\u2063"}, "alarming", "U+2063"),
    "a URL": ({"description": "ftp://new.example"}, "alarming", "new.example"),
}


@pytest.mark.parametrize("case", PROMPTS)
def test_a_change_of_a_prompt_has_its_grade(case):
    fields, grade, words = PROMPTS[case]
    ((found, reasons),) = graded(EMPTY._replace(prompts=[PROMPT]), EMPTY._replace(prompts=[{**PROMPT, **fields}]))
    assert found == grade and words in reasons


PARTS = {
    "a prompt comes": ({"prompts": [PROMPT]}, "compatible"),
    "a resource comes": ({"resources": [{"uri": "https://new.example/a", "name": "a"}]}, "compatible"),
    "a hidden resource comes": ({"resources": [{"uri": "a:", "name": "a\u200b"}]}, "alarming"),
    "a template comes": ({"templates": [{"uriTemplate": "a:{b}", "name": "a"}]}, "compatible"),
    "the instructions": ({"instructions": "Be kind."}, "text"),
    "instructions of nothing": ({"instructions": ""}, "notation"),
    "hidden instructions": ({"instructions": "Be kind.\u200b"}, "alarming"),
    "instructions with a URL": ({"instructions": "https://new.example"}, "alarming"),
    "the version": ({"server_info": {"name": "bank", "version": "2"}}, "notation"),
    "the name": ({"server_info": {"name": "bench", "version": "1"}}, "text"),
    "a hidden name": ({"server_info": {"name": "bank\u200b", "version": "1"}}, "alarming"),
    "a newer protocol": ({"protocol_versions": ["2026-07-28"]}, "compatible"),
    "one protocol more": ({"protocol_versions": ["2025-11-25", "2025-06-18"]}, "compatible"),
    "an older protocol": ({"protocol_versions": ["2025-06-18"]}, "breaking"),
    "no protocol": ({"protocol_versions": []}, "breaking"),
    "a capability": ({"capabilities": {"tools": {"listChanged": True}, "logging": {}}}, "compatible"),
    "no capability": ({"capabilities": {}}, "breaking"),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_change_of_another_part_has_its_grade(case):
    parts, grade = PARTS[case]
    ((found, _),) = graded(EMPTY, EMPTY._replace(**parts))
    assert found == grade


def test_what_goes_of_the_other_lists_has_its_grade():
    for part, item, grade in (
        ("prompts", PROMPT, "breaking"),
        ("resources", {"uri": "a:", "name": "a"}, "compatible"),
        ("templates", {"uriTemplate": "a:", "name": "a"}, "breaking"),
    ):
        ((found, _),) = graded(EMPTY._replace(**{part: [item]}), EMPTY)
        assert found == grade
    one, other = ([{"uri": "a:", "name": "a", "mimeType": kind}] for kind in ("text/plain", "text/html"))
    assert graded(EMPTY._replace(resources=one), EMPTY._replace(resources=other)) == [
        ("text", "Its mimeType has changed")
    ]
    able = EMPTY._replace(capabilities={"tools": {"listChanged": True}, "experimental": {"a": {}}})
    assert [grade for grade, _ in graded(able, EMPTY)] == ["compatible"]


def test_many_resources_that_come_and_go_are_one_change():
    files = [{"uri": f"file:///{n:02}", "name": f"{n}"} for n in range(20)]
    before, after = EMPTY._replace(resources=files[:8]), EMPTY._replace(resources=[*files[4:8], *files[9:]])
    (change,) = grades.compare(before, after)
    assert (change.kind, change.subject, change.grade) == ("resource", None, "compatible")
    assert change.before == {"count": 4, "names": [f"file:///{n:02}" for n in range(4)]}
    assert change.after == {"count": 11, "names": [f"file:///{n:02}" for n in range(9, 19)]}
    assert change.reasons == ("4 resources are gone and 11 resources are new",)
    hidden = after._replace(resources=[*(after.resources or []), {"uri": "b:", "name": "\u200b"}])
    assert grades.compare(before, hidden)[0].grade == "alarming"
    few = grades.compare(before, before._replace(resources=files[3:9]))
    assert [change.subject for change in few] == [f"file:///0{n}" for n in (0, 1, 2, 8)]


def test_the_worst_of_some_grades_is_the_last_in_their_order():
    assert grades.worst(["text", "breaking", "compatible"]) == "breaking"
    assert grades.worst([]) is None
    assert GRADES == ("notation", "text", "compatible", "breaking", "alarming")


# Properties.

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False, width=16)
    | st.text(max_size=4)
)
words = st.sampled_from(
    [
        *("type", "properties", "required", "enum", "const", "items", "anyOf", "allOf", "$ref", "$defs", "title"),
        *("minimum", "additionalProperties", "not", "prefixItems", "default", "description", "examples", "definitions"),
    ]
)
pointers = st.sampled_from(["#", "#/", "#/$defs/a", "#/$defs/b", "#/properties/a", "#/anyOf/0", "#x", "a:b"])
names = st.sampled_from(["a", "b", "type", "string", "$ref"])
anything = st.recursive(
    scalars | pointers | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | names, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(anything, anything)
@example({"properties": {"a": {"type": ["object", 1]}}, "required": [[]]}, {"properties": [], "required": {"a": 1}})
@example({"anyOf": 1}, {"anyOf": 2})
@example({"oneOf": None, "anyOf": {}}, {"oneOf": {}, "anyOf": None})
def test_any_json_as_a_schema_is_compared_and_graded_no_lower_than_the_digests_say(one, other):
    for key in ("inputSchema", "outputSchema"):
        before, after = {"name": "a", key: one}, {"name": "a", key: other}
        digests = fingerprint.fingerprint(before), fingerprint.fingerprint(after)
        changes = grades.compare(EMPTY._replace(tools=[before]), EMPTY._replace(tools=[after]))
        assert (changes == []) == (fingerprint.digest(before) == fingerprint.digest(after))
        for change in changes:
            assert (change.grade == "notation") == (digests[0].prompt == digests[1].prompt)
            if digests[0].contract != digests[1].contract:
                assert GRADES.index(change.grade) >= GRADES.index("compatible")
            json.dumps(change)


@settings(max_examples=50, deadline=None)
@given(st.lists(anything, min_size=1, max_size=4))
def test_an_offer_is_as_itself_in_any_order(found):
    items = [{"name": f"{n % 3}", "uri": f"{n % 2}", "inputSchema": item} for n, item in enumerate(found)]
    offer = EMPTY._replace(tools=items, prompts=items, resources=items, templates=items)
    turned = offer._replace(tools=items[::-1], prompts=items[::-1], resources=items[::-1], templates=items[::-1])
    assert grades.compare(offer, offer) == grades.compare(offer, turned) == []


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same JSON, with its keys, and what has no order, in another order."""
    if isinstance(value, list):
        return [shuffled(item, chance) for item in value]
    if not isinstance(value, dict):
        return value
    keys = chance.sample(list(value), len(value))
    unordered = {"required", "enum", "type"}
    return {
        key: chance.sample(value[key], len(value[key]))
        if key in unordered and isinstance(value[key], list)
        else shuffled(value[key], chance)
        for key in keys
    }


kinds = st.sampled_from(["string", "integer", "boolean"])
schemas = st.recursive(
    st.fixed_dictionaries({"type": kinds, "description": st.text(max_size=3)})
    | st.fixed_dictionaries({"enum": st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)}),
    lambda inner: (
        st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=2, max_size=3)})
        | st.dictionaries(st.sampled_from(["one", "two", "the_third"]), inner, min_size=1).map(
            lambda found: {"type": "object", "properties": found, "required": sorted(found)}
        )
    ),
    max_leaves=6,
)


def renoted(schema: dict[str, Any], definitions: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The schema in another notation: definitions, generated titles, constants, booleans that close."""
    new = dict(schema)
    if "properties" in new:
        new["properties"] = {
            name: {**renoted(item, definitions, chance), "title": name.replace("_", " ").title()}
            for name, item in new["properties"].items()
        }
        new["additionalProperties"] = chance.random() < 0.5
    for key in ("anyOf",):
        if key in new:
            new[key] = [renoted(item, definitions, chance) for item in new[key]]
    if "items" in new:
        new["items"] = renoted(new["items"], definitions, chance)
    if len(new.get("enum", ())) == 1:
        new = {"const": new["enum"][0], **{key: value for key, value in new.items() if key != "enum"}}
    if isinstance(new.get("type"), str) and chance.random() < 0.5:
        new["type"] = [new["type"]]
    if "title" not in new and chance.random() < 0.5:
        name = f"D{len(definitions)}"
        definitions[name] = new
        return {"$ref": f"#/{chance.choice(['$defs', 'definitions'])}/{name}"}
    return new


@settings(max_examples=100, deadline=None)
@given(schemas, st.integers())
def test_neither_order_nor_notation_changes_what_a_model_reads(schema, seed):
    chance = random.Random(seed)
    before: dict[str, Any] = {"name": "a", "inputSchema": {"type": "object", "properties": {"p": schema}}}
    definitions: dict[str, Any] = {}
    other = renoted(before["inputSchema"]["properties"]["p"], definitions, chance)
    places = {place: definitions for place in ("$defs", "definitions") if place in json.dumps([other, definitions])}
    after: dict[str, Any] = {"name": "a", "inputSchema": {"type": "object", "properties": {"p": other}, **places}}
    after["inputSchema"]["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    after["inputSchema"]["title"] = "aArguments"
    if len(places) == 2:  # what is referred to in one place is not in the other
        return
    after = shuffled(after, chance)
    assert fingerprint.fingerprint(before).prompt == fingerprint.fingerprint(after).prompt


TEXTUAL = ("title", "description", "$comment")
UNSEEN = ("\u200b", "\u202e", "\ufe0f", "\U000e0041", " ", "x")


@settings(max_examples=100, deadline=None)
@given(schemas, st.sampled_from(TEXTUAL), st.sampled_from(UNSEEN), st.integers(0, 99), st.booleans())
def test_any_change_of_a_text_changes_what_a_model_reads(schema, key, added, place, unused):
    root: dict[str, Any] = {"type": "object", "properties": {"p": schema, "q": {"$ref": "#/$defs/d"}}}
    root["$defs"] = {"d": {"type": "string"}, "loop": {"items": {"$ref": "#/$defs/loop"}}, "unused": {"type": "null"}}
    if unused:  # what leads away keeps all definitions
        root["properties"]["away"] = {"$ref": "https://x.example/schema"}

    def within(value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, dict | list):
            return []
        items: list[Any] = list(value.values() if isinstance(value, dict) else value)
        inner: list[Any] = [one for item in items for one in within(item)]
        is_schema = isinstance(value, dict) and value.keys() & {"type", "enum", "anyOf", "$ref", "items"}
        return cast("list[dict[str, Any]]", [value, *inner] if is_schema else inner)

    schemas = within(root)
    chosen = schemas[place % len(schemas)]
    chosen[key] = f"Words of {key}"
    before = fingerprint.fingerprint({"name": "a", "inputSchema": copy.deepcopy(root)})
    chosen[key] += added
    assert fingerprint.fingerprint({"name": "a", "inputSchema": root}).prompt != before.prompt


def operations(schema: Any, most: int) -> int:
    """How many functions are called to take a tool's digests and to compare it. Raises where it is more than `most`."""
    tool = {"name": "a", "inputSchema": schema, "description": "a"}
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")
        if count > most:
            sys.setprofile(None)
            raise AssertionError("it goes on and on")

    sys.setprofile(note)
    try:
        fingerprint.fingerprint(tool)
        grades.compare(EMPTY._replace(tools=[tool]), EMPTY._replace(tools=[{**tool, "description": "b"}]))
    finally:
        sys.setprofile(None)
    return count


def chain(length: int) -> dict[str, Any]:
    """Each definition names the next twice: two to the power of `length` of the last."""
    links: dict[str, Any] = {
        f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(length)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": {"type": "null"}}}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for n in range(levels):
        schema = {"anyOf": [schema, {"type": "null"}]} if n % 2 else {"properties": {"a": schema}, "required": ["a"]}
    return schema


def line(length: int) -> dict[str, Any]:
    links = {f"d{n}": {"properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": {"type": "null"}}}


def crowd(values: int, uses: int) -> dict[str, Any]:
    """One long list of values that is referred to often."""
    references = {f"p{n}": {"$ref": "#/$defs/e"} for n in range(uses)}
    return {"properties": references, "$defs": {"e": {"enum": list(range(values))}}}


GREEDY = {
    "a chain of doubles": chain(30),
    "a long line": line(3_000),
    "62 levels": nested(31),
    "a list that is used often": crowd(2_000, 500),
    "circles": {
        "$defs": {n: {"items": {"$ref": "#/$defs/a"}, "not": {"$ref": "#/$defs/b"}} for n in "ab"},
        "$ref": "#",
    },
    "a reference to what it is in": {"properties": {"a": {"$ref": "#/properties"}}},
    "wide": {"properties": {f"p{n}": {"type": "string"} for n in range(3_000)}},
}


@pytest.mark.parametrize("case", GREEDY)
def test_a_schema_costs_what_its_size_allows(case):
    schema = GREEDY[case]
    assert operations(schema, 200_000 + 200 * len(json.dumps(schema))) > 0


# Real packages in an old and a new release (`tests/real/pairs.py`): their digests and grades as observed, and what they
# offer without texts, on which the rules are run anew.
PAIRS = json.loads((ROOT / "tests" / "corpus" / "grades.json").read_text())


def test_there_are_sixteen_real_packages_and_each_grade_is_among_their_changes():
    assert len({pair["package"] for pair in PAIRS}) >= 16
    assert {grade for pair in PAIRS for _, _, grade in pair["grades"]} == set(GRADES)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair['package']} {pair['old']}")
def test_real_changes_have_the_grades_that_were_found_in_their_texts(pair):
    before, after = (Offer(**offer) for offer in pair["offers"])
    assert [[c.kind, c.subject, c.grade] for c in grades.compare(before, after)] == pair["grades"]
    assert grades.compare(before, before) == grades.compare(after, after) == []
    known = pair["digests"]
    found = [{tool["name"]: fingerprint.fingerprint(tool) for tool in offer.tools or ()} for offer in (before, after)]
    assert [side.keys() for side in found] == [side.keys() for side in known]
    for name in found[0].keys() & found[1].keys():
        same = [one == other for one, other in zip(found[0][name], found[1][name], strict=True)]
        assert same == [one == other for one, other in zip(known[0][name], known[1][name], strict=True)], name


# A rule, and where a real pair shows it.
SHOWN = {
    "is gone": ("chrome-devtools-mcp", "close_page"),
    "is new and required": ("chrome-devtools-mcp", "click"),
    "is required now": ("@playwright/mcp", "browser_take_screenshot"),
    "is optional now": ("mcp-server-kubernetes", "kubectl_delete"),
    "takes fewer types": ("chrome-devtools-mcp", "resize_page"),
    "takes more types": ("@modelcontextprotocol/server-sequential-thinking", "sequentialthinking"),
    "has a tighter bound (minItems)": ("mcp-server-git", "git_add"),
    "has a condition more (pattern)": ("@brave/brave-search-mcp-server", "brave_image_search"),
    "has another default": ("@brave/brave-search-mcp-server", "brave_news_search"),
    "takes more than before": ("@notionhq/notion-mcp-server", "API-create-a-comment"),
    "has other alternatives (anyOf)": ("@modelcontextprotocol/server-filesystem", "read_media_file"),
    "is of another type": ("chrome-devtools-mcp", "evaluate_script"),
    "The tool is new": ("chrome-devtools-mcp", "type_text"),
    "The tool is gone": ("@modelcontextprotocol/server-everything", "add"),
    "The prompt is gone": ("@modelcontextprotocol/server-everything", "complex_prompt"),
    "The template is gone": ("@modelcontextprotocol/server-everything", "test://static/resource/{id}"),
    "It names a host": ("tavily-mcp", "tavily_search"),
    "takes fewer values": ("chrome-devtools-mcp", "emulate"),
    "takes more values": ("chrome-devtools-mcp", "list_console_messages"),
    "The output has a schema now": ("mcp-server-time", "convert_time"),
    "It is not read-only any more": ("chrome-devtools-mcp", "get_network_request"),
    "It may destroy something now": ("@modelcontextprotocol/server-filesystem", "move_file"),
    "It says that it may destroy something": ("mcp-server-git", "git_reset"),
    "Only the notation has changed": ("@playwright/mcp", None),
    "The description has changed": ("awslabs.aws-documentation-mcp-server", "read_documentation"),
    "100 resources are gone and 7": ("@modelcontextprotocol/server-everything", None),
    "The instructions have changed": ("awslabs.aws-documentation-mcp-server", None),
    "It speaks other versions": ("@modelcontextprotocol/server-memory", None),
    "The capability prompts is gone": ("tavily-mcp", None),
    "Its version is another one": ("mcp-server-time", None),
}


@pytest.mark.parametrize("words", SHOWN)
def test_a_rule_is_shown_by_a_real_pair(words):
    package, subject = SHOWN[words]
    changes = [
        change
        for pair in PAIRS
        if pair["package"] == package
        for change in grades.compare(Offer(**pair["offers"][0]), Offer(**pair["offers"][1]))
    ]
    assert [c for c in changes if subject in (None, c.subject) and any(words in reason for reason in c.reasons)]
