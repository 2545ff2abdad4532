"""Tools are announced as `tools/list` answers them."""

from __future__ import annotations

import hashlib
import json
import sys
import unicodedata
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcp_registry.catalogue import names
from mcp_registry.catalogue import registration as rules

from client.tests.conftest import Registry
from client.tests.programs import kept, shown
from mcp_registry_client import _settings, _tools
from mcp_registry_client._api import Registry as Api
from mcp_registry_client._canonical import canonical
from mcp_registry_client._document import Unusable, document, legal_name
from mcp_registry_client._identity import Identities
from mcp_registry_client._presence import complete
from mcp_registry_client._tools import Facts, Unreadable, dumped, facts, read
from mcp_registry_client._trimming import Trimming
from tests.conftest import PASSWORD, USERNAME, registration

SCHEMA = {"type": "object"}
TOOL = {"name": "now", "inputSchema": SCHEMA}
KEPT = {"name": "now", "input_schema": SCHEMA}


def tools_of(source: Any) -> list[dict[str, Any]]:
    return dumped(complete(read(source)))


async def listed() -> list[dict[str, Any]]:
    return [TOOL]


@pytest.mark.parametrize(
    "source",
    [[TOOL], (TOOL,), {"now": TOOL}, lambda: [TOOL], listed, SimpleNamespace(tools={"now": TOOL}), iter([TOOL])],
)
def test_tools_may_be_given_in_many_ways(source: Any):
    assert tools_of(source) == [KEPT]


def test_every_field_is_sent_but_those_by_which_the_registry_says_something_itself():
    more = {
        "_meta": {"a": None},
        "icons": [],
        "execution": {"taskSupport": "optional"},
        "category": "time",
        "new": None,
    }
    assert tools_of([TOOL | more | {"title": None, "id": 7, "created_at": "today"}]) == [KEPT | more]


def test_of_two_spellings_of_a_schema_that_of_mcp_is_sent():
    both = [{"name": "now", "inputSchema": SCHEMA, "input_schema": 1}, {"input_schema": 1, **TOOL}]
    assert [tools_of([one]) for one in both] == [[KEPT], [KEPT]]
    assert tools_of([KEPT]) == [KEPT]


def test_a_null_inside_a_schema_stays():
    schema = {"type": "object", "properties": {"zone": {"default": None}}}
    assert tools_of([{"name": "now", "inputSchema": schema}])[0]["input_schema"] == schema


def test_the_order_is_that_of_the_list():
    names = ["b", "a", "c"]
    assert [tool["name"] for tool in tools_of([{"name": name, "inputSchema": SCHEMA} for name in names])] == names


@pytest.mark.parametrize("source", [object(), 7, [3], "now"])
def test_what_has_no_tools_says_so(source: Any):
    with pytest.raises((Unreadable, TypeError)):
        tools_of(source)


def test_a_tool_that_is_not_as_it_should_be_does_not_keep_the_others_out():
    """What the registry does not take of them is found out when they are sent."""

    class Odd:
        name = "odd"

        def model_dump(self, mode: str = "python", **options: Any) -> dict[str, Any]:
            if mode == "json":
                raise ValueError("Unable to serialize unknown type")  # as pydantic does
            return {"name": "odd", "inputSchema": {"default": object}}

    found = tools_of([TOOL, {"inputSchema": SCHEMA}, Odd(), {"name": 7}, {"inputSchema": SCHEMA}, TOOL])
    assert found == [
        KEPT,
        {"input_schema": SCHEMA},
        {"name": "odd", "input_schema": {"default": object}},
        {"name": 7},
        {"input_schema": SCHEMA},
    ]


@pytest.mark.parametrize(
    "low", [SimpleNamespace(request_handlers={}), SimpleNamespace(get_request_handler=lambda method: None)]
)
def test_a_low_level_server_that_cannot_list_tools_has_none(low: Any):
    low.list_tools = lambda: lambda function: function  # what mcp 1 has by this name is a decorator
    assert tools_of(low) == []


def test_of_several_versions_the_one_is_kept_that_the_framework_would(monkeypatch: pytest.MonkeyPatch):
    class Tool:
        name = "now"

        def __init__(self, version: str) -> None:
            self.version = version

        def to_mcp_tool(self) -> dict[str, Any]:
            return TOOL | {"description": self.version}

    def newest(tools: list[Any], key: Any) -> list[Any]:
        assert {key(tool) for tool in tools} == {"now"}
        return [tool for tool in tools if "rc" not in tool.version]

    monkeypatch.setitem(
        sys.modules,
        "fastmcp.utilities.versions",
        SimpleNamespace(dedupe_with_versions=newest),  # pyright: ignore[reportArgumentType]
    )
    assert tools_of([Tool("2.0rc1"), Tool("2.0")]) == [KEPT | {"description": "2.0"}]


def test_a_list_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch):
    async def answer(context: Any, params: Any) -> Any:
        return {"tools": [], "nextCursor": "more"}

    entry = SimpleNamespace(params_type=SimpleNamespace(model_validate=dict), handler=answer)
    with pytest.raises(Unreadable, match="200 pages"):
        tools_of(SimpleNamespace(get_request_handler=lambda method: entry))


@pytest.mark.parametrize("name", ["FastMCP", "FastMCP-1a2b", "FastMCPProxy-1a2b", "mcp-server", "", None])
def test_a_name_that_the_framework_made_up_is_none(name: str | None):
    assert facts(SimpleNamespace(name=name)).name is None
    with pytest.raises(Unusable, match="has no name"):
        document({}, facts(SimpleNamespace(name=name)), "https://h/mcp", [])


def test_the_version_of_the_framework_is_not_the_servers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fastmcp", SimpleNamespace(__version__="4.1.2"))  # pyright: ignore[reportArgumentType]
    assert facts(SimpleNamespace(name="a", version="4.1.2")).version is None
    assert facts(SimpleNamespace(name="a", version="4.1.3")).version == "4.1.3"


def test_a_name_for_people_becomes_one_for_the_registry():
    sent = document({}, Facts(name="The “Weather” of Zürich!"), "https://h/mcp", [])
    assert sent["name"] == "The-Weather-of-Zurich" and sent["display_name"] == "The “Weather” of Zürich!"


@pytest.mark.parametrize(
    ("given", "legal"),
    [
        ("weather", "weather"),
        ("3.14", "3.14"),
        ("Mein Wetter für alle", "Mein-Wetter-fur-alle"),
        ("Café rates", "Cafe-rates"),
        ("Cafe\u0301 rates", "Cafe-rates"),
        ("io.github.ann/weather", "io.github.ann/weather"),
        ("acme/Café", "acme/Cafe"),
        ("@scope/a/b", "scope-a-b"),
        ("https://x.y/z", "https-x.y-z"),
        ("--x--", "x"),
        ("a/", "a"),
        ("-/b", "b"),
        ("Łódź", "Lodz"),
        ("Ærø Ferry", "Aero-Ferry"),
        ("Große Straße", "Grosse-Strasse"),
        ("Đà Nẵng", "Da-Nang"),
        ("İstanbul ışık", "Istanbul-isik"),
        ("ＡＢＣ ①", "ABC-1"),
        ("Acme® Weather™ — beta", "Acme-WeatherTM-beta"),
    ],
)
def test_a_name_that_is_not_legal_becomes_the_nearest_that_is(given: str, legal: str):
    assert legal_name(given) == legal and names.fault(legal) is None


LOST = {
    "Chinese": "天气服务",
    "Chinese, another": "天气",
    "Japanese": "カフェ",
    "Korean": "날씨",
    "Greek": "Ελλάδα",
    "Cyrillic": "Погода",
    "Hebrew, from right to left": "מזג אוויר",
    "Arabic": "الطقس",
    "Hindi": "मौसम",
    "an emoji": "🌤",
    "another emoji": "🌧",
    "a flag": "🇨🇭",
    "people": "👩\u200d💻",
    "punctuation": "._/_.",
    "a dash": "--",
    "digits, which would be an id": "2024",
    "digits and more": "天气1",
    "digits and more, another": "服务1",
    "digits of another script": "٣٤",
    "a letter that no other stands for": "ð",
    "half a surrogate pair": "\ud800",
}


@pytest.mark.parametrize("case", LOST)
def test_a_name_without_a_letter_that_the_registry_takes_becomes_a_stable_one(case: str):
    digest = hashlib.sha256(LOST[case].encode("utf-8", "backslashreplace")).hexdigest()
    assert legal_name(LOST[case]) == f"mcp-{digest[:8]}" and names.fault(legal_name(LOST[case])) is None


@pytest.mark.parametrize("name", ["날씨", "ガス", "天气 Café"])
def test_a_name_is_the_same_in_whichever_form_an_editor_writes_its_letters(name: str):
    forms = {legal_name(unicodedata.normalize(form, name)) for form in ("NFC", "NFD")}
    assert len(forms) == 1


def test_two_names_that_lose_what_tells_them_apart_do_not_become_one():
    pairs = [
        ("天气 weather", "weather"),
        ("天气 weather", "服务 weather"),
        ("🌤 weather", "🌧 weather"),
        ("acme/天気", "acme/カフェ"),
        ("天気/weather", "weather"),
        ("€ rates", "¥€ rates"),
        ("a" * 101, "a" * 102),
        ("a" * 101, "a" * 100),
        ("a" * 99 + "/b", "a" * 99 + "/c"),
        *zip(list(LOST.values())[:-1], list(LOST.values())[1:], strict=True),
    ]
    for one, other in pairs:
        same = zip(names.keys(legal_name(one)), names.keys(legal_name(other)), strict=True)
        assert not any(key == its_key for key, its_key in same), (one, other)
        for legal in map(legal_name, (one, other)):
            assert names.fault(legal) is None and len(legal) <= 100 and not legal.isdigit()
    assert legal_name("天气 weather").startswith("weather-") and legal_name("acme/天気").startswith("acme-")


@given(st.text(min_size=1, max_size=150))
@example("½")
@example("_" * 90 + "/" + "a" * 20)
def test_whatever_a_server_is_called_the_name_is_one_that_the_registry_takes_or_has_reserved(text: str):
    legal = legal_name(text)
    assert legal == legal_name(text) and len(legal) <= 100 and not legal.isdigit()
    assert names.fault(legal) is None or "reserved" in str(names.fault(legal))


def test_what_people_read_is_as_the_server_says_it_as_far_as_the_registry_takes_it():
    sent = document({}, Facts(name="天" * 250, version="1" * 300), "https://h/mcp", [])
    assert (sent["display_name"], sent["version"]) == ("天" * 200, "1" * 255)
    assert rules.parse(sent)
    # What its owner says is left to the registry to refuse.
    given = document({"display_name": "天" * 250, "version": "1" * 300}, Facts(name="a"), "https://h/mcp", [])
    assert len(given["display_name"]) == 250 and len(given["version"]) == 300


HALF = "\ud83d"


@pytest.mark.parametrize("size", [65_536, 65_537, 1_200_000, 5_000_000])
def test_a_description_of_any_length_does_not_keep_the_server_out_and_is_said_once_to_be_cut(
    size: int, caplog: pytest.LogCaptureFixture
):
    facts = Facts(name=f"wordy-{size}", description="d" + "ä" * ((size - 1) // 2) + "e" * ((size - 1) % 2))
    sent = [document({}, facts, "https://h/mcp", []) for _ in range(3)][-1]
    assert len(sent["description"].encode()) == (65_536 if size == 65_536 else 65_535)
    assert str(facts.description).startswith(sent["description"]) and rules.parse(sent)
    assert [record.getMessage() for record in caplog.records] == [
        f"wordy-{size} says more of itself than the registry takes, and the end is cut off: description"
    ] * (size > 65_536)
    # What its owner says is sent as it is, and nothing is cut then.
    told: list[str] = []
    given = document({"description": "d" * size}, facts, "https://h/mcp", [], told.append)
    assert len(given["description"]) == size and told == []


@pytest.mark.parametrize("half", ["\0", HALF, f"\0{HALF}"])
def test_what_is_no_text_in_what_a_server_says_does_not_keep_it_out(half: str):
    facts = Facts(f"na{half}me", f"ti{half}tle", f"in{half}structions", f"1{half}0", f"https://h/{half}")
    sent = document({}, facts, "https://h/mcp", [])
    mended = "\ufffd" * len(half)
    assert rules.parse(json.loads(canonical(sent))) and names.fault(sent["name"]) is None
    assert [sent[field] for field in ("display_name", "description", "version")] == [
        f"ti{mended}tle",
        f"in{mended}structions",
        f"1{mended}0",
    ]
    assert document({}, Facts(name=f"na{half}me"), "https://h/mcp", [])["display_name"] == f"na{mended}me"


@pytest.mark.parametrize("website", ["docs", "javascript:1", "https://h/ä"])
def test_a_website_that_is_no_link_does_not_keep_the_server_out(website: str):
    assert "metadata" not in document({}, Facts(name="a", website_url=website), "https://h/mcp", [])


def test_what_the_owner_says_goes_before_what_the_server_says():
    said = Facts("weather", "Weather", "Instructions", "1.0", "https://h/docs")
    sent = document({"name": "w", "version": "2.0", "tags": ("a", "b"), "author": None}, said, "https://h/mcp", [])
    assert sent == {
        "name": "w",
        "display_name": "Weather",
        "description": "Instructions",
        "server_type": "community",
        "endpoint_url": "https://h/mcp",
        "version": "2.0",
        "metadata": {"documentation_url": "https://h/docs", "tags": ["a", "b"]},
        "tools": [],
    }


def test_the_fields_that_have_rules_are_those_of_the_registry():
    assert (_tools.KNOWN, _tools.OURS) == (rules.TOOL_FIELDS, rules.ALIASES)
    assert _tools.SAID_BY_REGISTRY == rules.SAID_BY_US


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(WORDS, VALUES, max_size=3)
OPTIONAL = {
    "title": WORDS,
    "description": WORDS,
    "outputSchema": OBJECTS,
    "annotations": OBJECTS,
    "icons": st.lists(OBJECTS, max_size=2),
    "execution": OBJECTS,
    "_meta": OBJECTS,
}
OWN = {"input_schema", "output_schema", "category"}
LISTED = st.lists(
    st.builds(
        lambda more, own: {**more, **own},
        st.dictionaries(WORDS.filter(lambda word: word not in OWN), VALUES, max_size=3),
        st.fixed_dictionaries({"name": WORDS.filter(bool), "inputSchema": OBJECTS}, optional=OPTIONAL),
    ),
    max_size=4,
    unique_by=lambda tool: tool["name"],
)


@settings(max_examples=60, deadline=None)
@given(LISTED)
@example([{**TOOL, "id": 1, "created_at": "now", "position": 2, "extra": {"a": 1}, "new": None, "": 0, "a.b": [1]}])
def test_what_is_listed_arrives(registry: Registry, listed: list[dict[str, Any]]):
    name = "whatever-is-listed"
    handle = Trimming({**registration(name), "tools": tools_of(listed)})
    who = Identities(_settings.Settings(registry.url, USERNAME, PASSWORD), {})
    answer = Api(registry.url, who, 30).put(handle)
    assert handle.left_out == handle.dropped == handle.unknown == []
    tools = registry.get(f"/api/registry/servers/{answer['id']}")["tools"]
    assert canonical(shown({"tools": tools})) == canonical(shown({"tools": kept(listed)}))
    # The order of keys is for people; what a number is stays.
    assert json.loads(canonical(shown({"tools": tools}))) == shown({"tools": tools})
