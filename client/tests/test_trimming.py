"""One part of a registration that the registry does not take keeps nothing else out."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
from mcp_registry import forms
from mcp_registry.catalogue import registration as rules
from mcp_registry.edge import intake
from mcp_registry.errors import MAX_FAULTS, ValidationFailed

from mcp_registry_client import _trimming
from mcp_registry_client._canonical import canonical
from mcp_registry_client._json import Fault
from mcp_registry_client._trimming import MAX_BODY, Dropped, Learnt, LeftOut, Trimming
from tests.conftest import registration

MIB = 1 << 20
TOO_LONG = "the whole registration may have 1 MiB"


def tool(name: Any, **fields: Any) -> dict[str, Any]:
    """A tool as it is registered."""
    return {"name": name, "description": f"What {name} does.", "input_schema": {"type": "object"}, **fields}


def schema(size: int, word: str = "x") -> dict[str, Any]:
    """A schema of so many bytes of JSON."""
    return {"type": "object", "title": word * (size - len('{"title":"","type":"object"}'))}


def nested(levels: int) -> dict[str, Any]:
    """A schema of so many levels."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def endless() -> dict[str, Any]:
    """A schema that contains itself."""
    value: dict[str, Any] = {"type": "object"}
    value["properties"] = value
    return value


def faults_of(body: bytes) -> list[Fault]:
    """What the registry says is wrong with a registration, by its own rules."""
    try:
        rules.parse(intake.parse(body))
    except ValidationFailed as failed:
        return [Fault(*fault) for fault in failed.faults] or [Fault("", str(failed), "")]
    return []


def older_faults_of(body: bytes) -> list[Fault]:
    """What a registry says that knows no field of a tool but those that have rules."""
    found = forms.faults(json.loads(body), rules.Document)
    return [Fault(*fault) for fault in islice(found, MAX_FAULTS)] or faults_of(body)


def sent_to_the_registry(trimming: Trimming, refusal: Any = faults_of) -> None:
    """Send it until the registry takes it."""
    while faults := refusal(trimming.body):
        assert trimming.learn(faults), faults


def names(trimming: Trimming) -> list[str]:
    return [one["name"] for one in trimming.document["tools"]]


def test_what_the_registry_takes_is_sent_as_it_is():
    document = registration("whole", tools=[tool("a"), tool("b", output_schema=schema(99))])
    trimming = Trimming(document)
    assert trimming.body == canonical(document) and trimming.document == document
    assert trimming.left_out == trimming.dropped == trimming.told("whole") == []


BAD = {
    "an empty name": (tool(""), "name: "),
    "a long name": (tool("n" * 129), "name: Must have at most 128 characters"),
    "a name that is none": (tool(7), "name: "),
    "no name": ({"input_schema": {}}, "name: This field is required"),
    "a long description": (tool("bad", description="ä" * 40_000), "description: Longer than 65536 bytes"),
    "a description that is none": (tool("bad", description=["x"]), "description: "),
    "no schema": ({"name": "bad"}, "input_schema: This field is required"),
    "a schema that is none": (tool("bad", input_schema=[]), "input_schema: "),
    "a long schema": (tool("bad", input_schema=schema(300_000)), "input_schema: Longer than 262144 bytes"),
    "a long schema of an output": (tool("bad", output_schema=schema(300_000)), "output_schema: Longer"),
    "a deep schema": (tool("bad", input_schema=nested(65)), "input_schema: Nested more than 64 levels"),
    "a schema as deep as nobody reads": (tool("bad", input_schema=nested(201)), "nested more than 200 levels"),
    "a schema deeper than Python": (tool("bad", input_schema=nested(5000)), "nested more than 200 levels"),
    "a schema without end": (tool("bad", input_schema=endless()), "nested more than 200 levels"),
    "a long category": (tool("bad", category="c" * 51), "category: "),
    "NUL": (tool("bad", description="a\0b"), "description: Holds NUL"),
    "NUL in a key": (tool("bad", input_schema={"a\0": 1}), "input_schema: A key holds NUL"),
    "half a surrogate pair": (tool("bad", description="\ud83d"), "half a surrogate pair"),
    "not a number": (tool("bad", input_schema={"default": float("nan")}), "not JSON"),
    "beyond all numbers": (tool("bad", input_schema={"maximum": float("inf")}), "not JSON"),
    "a value that is no JSON": (tool("bad", input_schema={"default": object()}), "not JSON"),
    "a key that is none": (tool("bad", input_schema={1: "a"}), "not JSON"),
    "a number of too many digits": (tool("bad", input_schema={"maximum": 10**5000}), "not JSON"),
    "a name that another has": (tool("good", description="Another."), "name: The same name as tools.0"),
    "the same again": (tool("good"), "name: The same name as tools.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_tool_that_the_registry_does_not_take_is_left_out_and_named_with_its_rule(case: str):
    bad, rule = BAD[case]
    trimming = Trimming(registration("one-bad", tools=[tool("good"), bad, tool("better")]))
    sent_to_the_registry(trimming)
    assert names(trimming) == ["good", "better"] and trimming.dropped == []
    (left_out,) = trimming.left_out
    assert rule in left_out.rule
    assert left_out.name == (bad.get("name") if isinstance(bad.get("name"), str) and bad["name"] else "number 2")
    (told,) = trimming.told("one-bad")
    assert told.startswith(f"one-bad is registered without one of its tools: {left_out.name}") and rule in told


def test_a_server_of_nothing_but_such_tools_is_registered_without_any():
    trimming = Trimming(registration("all-bad", tools=[tool("n" * 129 + str(number)) for number in range(350)]))
    sent_to_the_registry(trimming)
    assert names(trimming) == [] and len(trimming.left_out) == 350
    (told,) = trimming.told("all-bad")
    assert "350 of its tools" in told and told.endswith("; and 345 more") and len(told) < 2_000


def test_of_more_tools_than_the_registry_takes_the_first_are_registered():
    trimming = Trimming(registration("many", tools=[tool(f"t{number}") for number in range(2_003)]))
    sent_to_the_registry(trimming)
    assert names(trimming) == [f"t{number}" for number in range(2_000)]
    assert [one.name for one in trimming.left_out] == ["t2000", "t2001", "t2002"]
    assert {one.rule for one in trimming.left_out} == {"Must have at most 2000 items"}


def test_a_tool_that_was_one_too_many_is_registered_once_others_are_gone():
    learnt = Learnt()
    tools = [tool(f"t{number}") for number in range(2_003)]
    sent_to_the_registry(Trimming(registration("many", tools=tools), learnt))
    # It is known how many the registry takes, and of no tool that it is one too many.
    assert learnt.tools == {} and len(Trimming(registration("many", tools=tools), learnt).left_out) == 3
    fewer = Trimming(registration("many", tools=tools[1_000:]), learnt)
    assert fewer.document["tools"] == tools[1_000:] and fewer.left_out == []


@pytest.mark.parametrize("number", [1, 150])
def test_a_good_tool_is_not_one_too_many_where_bad_ones_are_before_it(number: int):
    bad = [tool(f"{place}{'b' * 129}") for place in range(number)]
    tools = [tool(f"t{place}") for place in range(1_999)]
    trimming = Trimming(registration("many", tools=[*bad, *tools, tool("last")]))
    sent_to_the_registry(trimming)
    assert names(trimming)[-1] == "last" and len(names(trimming)) == 2_000
    assert {one.name for one in trimming.left_out} == {one["name"] for one in bad}


def test_where_an_answer_names_single_faults_and_the_limit_the_single_ones_are_learnt_first():
    learnt = Learnt()
    trimming = Trimming(registration("both", tools=[tool("bad"), tool("good"), tool("better")]), learnt)
    both = [Fault("tools", "Must have at most 2 items", "range"), Fault("tools.0.name", "No", "value")]
    assert trimming.learn(both) and names(trimming) == ["good", "better"] and learnt.limit is None


def test_what_was_learnt_of_a_tool_is_known_of_the_next_list_and_a_tool_that_was_mended_is_in_it():
    learnt = Learnt()
    tools = [tool("good"), tool("b" * 129), tool("c", category="c" * 51)]
    first = Trimming(registration("again", tools=tools), learnt)
    sent_to_the_registry(first)
    assert Trimming(registration("again", tools=tools), learnt).body == first.body
    mended = Trimming(registration("again", tools=[*tools[:2], tool("c")]), learnt)
    assert names(mended) == ["good", "c"] and len(mended.left_out) == 1


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [("", "Expected an object")],
        [("name", "This name is reserved")],
        [("tools.1.name", "Too long"), ("endpoint_url", "No URL")],
        [("tools.9.name", "Too long")],
        [("tools", "Expected an array")],
        [("toolset.1", "There is no such field")],
    ],
)
def test_a_fault_that_is_none_of_a_tool_is_not_mended_by_leaving_tools_out(faults: list[tuple[str, str]]):
    trimming = Trimming(registration("other", tools=[tool("a"), tool("b")]))
    assert not trimming.learn([Fault(path, message, "unknown") for path, message in faults]) and names(trimming) == [
        "a",
        "b",
    ]


def test_a_registry_that_always_finds_another_fault_is_given_up():
    trimming = Trimming(registration("endless", tools=[tool(f"t{number}") for number in range(100)]))
    rounds = 0
    while trimming.learn([Fault("tools.0", "No", "value")]):
        rounds += 1
    assert rounds == _trimming.MAX_ROUNDS


def test_what_is_no_json_besides_the_tools_is_said_at_once():
    for value in (float("nan"), "\ud800", object()):
        with pytest.raises((TypeError, ValueError)):
            Trimming(registration("no-json", description=value))


# ------------------------------------------------------------------ fields without a rule of their own


MORE = {"_meta": {"a.b/c": [None, 1.5]}, "icons": [{"src": "data:,"}], "execution": {"taskSupport": "optional"}, "": 0}


def test_a_registry_that_knows_fewer_fields_of_a_tool_is_sent_the_tools_without_the_others():
    tools = [tool(f"t{number}", **MORE) for number in range(1_000)]
    learnt = Learnt()
    trimming = Trimming(registration("older", tools=tools), learnt)
    rounds = 0
    while faults := older_faults_of(trimming.body):
        assert trimming.learn(faults)
        rounds += 1
    # What it knows of no tool is named of the first hundred, and learnt of all.
    assert rounds == 1 and trimming.unknown == sorted(MORE)
    assert trimming.document["tools"] == [tool(f"t{number}") for number in range(1_000)]
    assert trimming.body == canonical(trimming.document)
    assert trimming.left_out == trimming.dropped == trimming.told("older") == []
    # This registry is not sent them again; another one is.
    assert Trimming(registration("older", tools=tools), learnt).body == trimming.body
    assert Trimming(registration("older", tools=tools)).document["tools"] == tools


def test_with_a_field_that_is_unknown_goes_nothing_else():
    tools = [tool("a", x=1), tool("b" * 129, y=2), tool("c", **{"x.y": 3, "z": {"x": 4}})]
    trimming = Trimming(registration("older", tools=tools))
    sent_to_the_registry(trimming, older_faults_of)
    assert trimming.document["tools"] == [tool("a"), tool("c")] and trimming.unknown == ["x", "x.y", "y", "z"]
    (left_out,) = trimming.left_out
    assert left_out == LeftOut("b" * 129, "name: Must have at most 128 characters") and trimming.dropped == []


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("x" * 300_000, "Longer than 262144 bytes of JSON"),
        (nested(65), "Nested more than 64 levels deep"),
        ({"a": ["\0"]}, "Holds NUL or half a surrogate pair"),
    ],
)
def test_a_field_that_the_registry_does_not_take_is_left_out_and_not_its_tool(value: Any, rule: str):
    learnt = Learnt()
    tools = [tool("good", icons=[]), tool("bad", icons=value, _meta={}), tool("better", icons=[1])]
    trimming = Trimming(registration("pictures", tools=tools), learnt)
    sent_to_the_registry(trimming)
    assert trimming.document["tools"] == [tools[0], tool("bad", _meta={}), tools[2]] and trimming.left_out == []
    assert trimming.dropped == [Dropped("bad", "icons", rule)] and trimming.unknown == []
    (told,) = trimming.told("pictures")
    assert told == f"pictures is registered without one of its tools' fields: icons of bad ({rule})"
    assert Trimming(registration("pictures", tools=tools), learnt).body == trimming.body


@pytest.mark.parametrize("value", [object(), float("nan"), "\ud800", {1: 2}, endless(), nested(201)])
def test_a_field_that_is_no_json_takes_no_tool_with_it(value: Any):
    trimming = Trimming(registration("handler", tools=[tool("a", handler=value, _meta={"a": 1})]))
    sent_to_the_registry(trimming)
    assert trimming.document["tools"] == [tool("a", _meta={"a": 1})] and trimming.left_out == []


# ------------------------------------------------------------------ the whole is too long


def test_of_a_registration_that_is_too_long_the_largest_schemas_are_left_out_and_every_description_stays():
    sizes = [240_000, 10_000, 250_000, 230_000, 140_000, 200_000]
    tools = [tool(f"t{place}", input_schema=schema(size)) for place, size in enumerate(sizes)]
    trimming = Trimming(registration("large", tools=tools))
    assert 1_070_000 - 250_000 < len(trimming.body) <= MAX_BODY == MIB
    assert trimming.dropped == [Dropped("t2", "input_schema", TOO_LONG)] and trimming.left_out == []
    rules.parse(json.loads(trimming.body))
    for given, kept in zip(tools, trimming.document["tools"], strict=True):
        assert kept["description"] == given["description"]
        assert kept["input_schema"] == ({"type": "object"} if kept["name"] == "t2" else given["input_schema"])
    (told,) = trimming.told("large")
    assert told == f"large is registered without one of its tools' fields: input_schema of t2 ({TOO_LONG})"


def test_of_schemas_of_one_size_that_of_an_output_goes_first_and_then_that_of_the_last_tool():
    tools = [tool(f"t{place}", input_schema=schema(99_000), output_schema=schema(99_000, "y")) for place in range(8)]
    trimming = Trimming(registration("alike", tools=tools))
    assert trimming.dropped == [Dropped(f"t{place}", "output_schema", TOO_LONG) for place in range(2, 8)]
    assert len(trimming.body) > MIB - 99_000
    more = [*tools, *(tool(f"u{place}", input_schema=schema(99_000)) for place in range(4))]
    dropped = Trimming(registration("alike", tools=more)).dropped
    assert [one for one in dropped if one.field == "input_schema"] == [
        Dropped("u2", "input_schema", TOO_LONG),
        Dropped("u3", "input_schema", TOO_LONG),
    ]


def test_where_it_is_too_long_pictures_go_before_schemas_and_no_more_of_either_than_have_to():
    tools = [tool(f"t{n}", input_schema=schema(130_000), icons=["i" * (60_000 + n)], _meta={"n": n}) for n in range(8)]
    trimming = Trimming(registration("pictures", tools=tools))
    # Eight schemas have 1.04 MB, and eight pictures would have 0.48 MB more.
    assert trimming.dropped == [Dropped(f"t{n}", "icons", TOO_LONG) for n in range(8)]
    assert MIB - 60_000 < len(trimming.body) <= MIB
    assert trimming.document["tools"][3] == {field: value for field, value in tools[3].items() if field != "icons"}
    rules.parse(json.loads(trimming.body))


def test_of_a_tool_that_is_left_out_no_field_is_said_to_be():
    tools = [tool(f"t{n}", description="d" * 60_000, icons="x" * 300_000 if n > 15 else []) for n in range(20)]
    trimming = Trimming(registration("wordy", tools=tools))
    sent_to_the_registry(trimming)
    assert {one.name for one in trimming.dropped}.isdisjoint(one.name for one in trimming.left_out)


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_a_registration_of_exactly_1_mib_is_sent_whole(over: int):
    document = registration("exact", tools=[tool("t", input_schema=schema(100))])
    document["description"] = "d" * (MIB - len(canonical({**document, "description": ""})) + over)
    trimming = Trimming(document)
    assert len(trimming.body) <= MIB and bool(trimming.dropped) == (over > 0)


def test_where_descriptions_alone_are_too_long_the_last_tools_are_left_out():
    tools = [tool(f"t{place}", description="d" * 60_000, output_schema=schema(500)) for place in range(20)]
    trimming = Trimming(registration("wordy", tools=tools))
    assert names(trimming) == [f"t{place}" for place in range(17)]
    assert all(len(one["description"]) == 60_000 for one in trimming.document["tools"])
    assert MIB - 60_000 < len(trimming.body) <= MIB
    assert {one.rule for one in trimming.left_out} == {TOO_LONG}
    assert all(one.name in names(trimming) for one in trimming.dropped)
    rules.parse(json.loads(trimming.body))


@pytest.mark.parametrize("place", [0, 10, 20])
def test_a_tool_that_is_too_long_by_itself_takes_nothing_of_the_others_with_it(place: int):
    tools = [tool(f"t{n}", input_schema=schema(20_000), icons=[n]) for n in range(20)]
    culprit = tool("culprit", description="d" * (5 * MIB), icons=["i"])
    trimming = Trimming(registration("culprit", tools=[*tools[:place], culprit, *tools[place:]]))
    assert trimming.document["tools"] == tools and trimming.dropped == []
    assert trimming.left_out == [LeftOut("culprit", TOO_LONG)]


@pytest.mark.parametrize("place", [0, 10, 20])
@pytest.mark.parametrize("field", ["input_schema", "icons"])
def test_a_field_that_is_too_long_by_itself_takes_nothing_else_with_it(field: str, place: int):
    tools = [tool(f"t{n}", input_schema=schema(20_000), icons=[n]) for n in range(20)]
    culprit = tool("culprit", _meta={"a": 1}, **{field: schema(5 * MIB)})
    trimming = Trimming(registration("culprit", tools=[*tools[:place], culprit, *tools[place:]]))
    sent = trimming.document["tools"]
    assert [*sent[:place], *sent[place + 1 :]] == tools and sent[place] == tool("culprit", _meta={"a": 1})
    assert trimming.dropped == [Dropped("culprit", field, TOO_LONG)] and trimming.left_out == []


@pytest.mark.parametrize("place", [0, 10, 20])
def test_where_no_field_is_enough_the_longest_tool_goes_and_the_others_lose_no_more_than_has_to_be(place: int):
    tools = [tool(f"t{n}", description="d" * 40_000, output_schema=schema(12_000 + n)) for n in range(20)]
    culprit = tool("culprit", description="d" * 600_000)
    trimming = Trimming(registration("wordy", tools=[*tools[:place], culprit, *tools[place:]]))
    assert trimming.left_out == [LeftOut("culprit", TOO_LONG)] and len(trimming.document["tools"]) == 20
    assert trimming.dropped == []
    for one in tools:
        one["output_schema"] = schema(20_000)
    trimming = Trimming(registration("wordy", tools=[*tools[:place], culprit, *tools[place:]]))
    assert trimming.left_out == [LeftOut("culprit", TOO_LONG)] and len(trimming.document["tools"]) == 20
    assert (
        trimming.dropped
        == [Dropped(f"t{n}", "output_schema", TOO_LONG) for n in range(11, 20)][-len(trimming.dropped) :]
    )
    assert trimming.dropped and MIB - 20_100 < len(trimming.body) <= MIB


def test_a_schema_is_put_back_where_the_registry_took_less_of_the_rest():
    tools = [tool("small", input_schema=schema(200_000)), *(tool(f"t{n}", input_schema=schema(290_000)) for n in "abc")]
    trimming = Trimming(registration("both", tools=tools))
    assert len(trimming.dropped) == 1
    sent_to_the_registry(trimming)
    # All three are longer than a schema may be: none of them is in it, and nothing is too long any more.
    assert names(trimming) == ["small"] and trimming.dropped == [] and len(trimming.left_out) == 3


def test_what_takes_less_than_the_registry_on_the_way_is_sent_half_as_long_until_it_takes_it():
    tools = [tool(f"t{place}", input_schema=schema(50_000 + place)) for place in range(20)]
    trimming = Trimming(registration("narrow", tools=tools))
    lengths = [len(trimming.body)]
    while trimming.shorten():
        lengths.append(len(trimming.body))
    assert lengths == sorted(lengths, reverse=True) and len(lengths) == 4 and lengths[-1] < 64 << 10
    assert len(trimming.document["tools"]) == 20
    assert not Trimming(registration("small")).shorten()


def test_what_does_not_become_shorter_is_not_sent_again():
    trimming = Trimming(registration("words", description="d" * 300_000, tools=[]))
    assert not trimming.shorten()


def test_tools_that_were_left_out_before_are_told_too():
    earlier = LeftOut("number 1", "It has no name, which MCP requires")
    trimming = Trimming(registration("earlier", tools=[tool("t", category="c" * 51)]), left_out=[earlier])
    sent_to_the_registry(trimming)
    assert [one.name for one in trimming.left_out] == ["number 1", "t"]
