"""GET /api/registry/servers, and GET, PATCH, DELETE /api/registry/servers/{id}."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

REGISTER = "/api/registry/register"
SERVERS = "/api/registry/servers"
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def pages(api, query: str = "", limit: int = 2):
    """All pages of a list, by its cursors."""
    path = f"{SERVERS}?limit={limit}{query}"
    while path:
        page = api("GET", path).json()
        yield page
        path = f"{SERVERS}?limit={limit}&cursor={page['next_cursor']}" if page["next_cursor"] else ""


def test_a_listed_server_has_these_fields(api):
    created = api.register(version="1.2.3", server_type="official")
    page = api("GET", f"{SERVERS}?search={created['name']}").json()
    (listed,) = page.pop("servers")
    assert page == {"total": 1, "total_is": "exact", "next_cursor": None}
    expected = {
        "id": created["id"],
        "name": created["name"],
        "display_name": f"Server {created['name']}",
        "server_type": "official",
        "status": "active",
        "verdict": "unknown",
        "frozen": False,
        "version": "1.2.3",
        "last_health_check": None,
        "tools_count": 1,
        "owner": "default",
    }
    assert set(listed) == set(expected)
    assert api.unswept(listed) == api.unswept(expected)
    assert listed["status"] in api.may_be("active")


def test_pages_follow_the_order_of_registration_and_hold_each_server_once(api):
    word = api.new_name("paged")
    made = [api.register(name=f"{word}-{letter}")["id"] for letter in "abcde"]
    found = list(pages(api, f"&search={word}"))
    assert [[server["id"] for server in page["servers"]] for page in found] == [made[:2], made[2:4], made[4:]]
    assert [page["total"] for page in found] == [5, 5, 5]


def test_a_walk_survives_inserts_and_deletes_between_its_pages(api):
    word = api.new_name("walked")
    made = [api.register(name=f"{word}-{number}")["id"] for number in range(6)]
    seen = []
    for number, page in enumerate(pages(api, f"&search={word}")):
        seen += [server["id"] for server in page["servers"]]
        api("DELETE", f"{SERVERS}/{made[number]}")
        api.register(name=f"{word}-new-{number}")
        assert number < 10
    assert [id_ for id_ in seen if id_ in made] == made


def test_a_page_that_ends_exactly_has_no_next(api):
    word = api.new_name("exact")
    for letter in "ab":
        api.register(name=f"{word}-{letter}")
    assert api("GET", f"{SERVERS}?search={word}&limit=2").json()["next_cursor"] is None


def test_filters_narrow_the_list_and_the_total(api):
    word = api.new_name("kinds")
    mock = api.register(name=f"{word}-mock")
    official = api.register(name=f"{word}-official", server_type="official")
    api("PATCH", f"{SERVERS}/{official['id']}", {"status": "inactive"})

    def ids(query: str) -> list[int]:
        page = api("GET", f"{SERVERS}?search={word}{query}").json()
        assert page["total"] == len(page["servers"])
        return [server["id"] for server in page["servers"]]

    assert ids("") == [mock["id"], official["id"]]
    assert ids("&type=official") == [official["id"]]
    assert ids("&status=inactive&type=official") == [official["id"]]
    # A sweep may call it down before, between or after these two.
    assert {*ids("&status=active"), *ids("&status=error")} == {mock["id"]}
    if not api.shared:
        assert ids("&status=error") == []


@pytest.mark.parametrize("query", ["status=active", "type=mock", "status=active&type=mock", "status=error", ""])
def test_the_total_is_what_the_pages_hold(api, query):
    word = api.new_name("counted")
    api.register(name=f"{word}-a")
    inactive = api.register(name=f"{word}-b")["id"]
    api("PATCH", f"{SERVERS}/{inactive}", {"status": "inactive"})
    # Where others come and go, only what is ours holds still between two pages.
    query = "&".join(filter(None, [query, f"search={word}" if api.shared else ""]))
    found = list(pages(api, f"&{query}" if query else "", limit=1000))
    assert sum(len(page["servers"]) for page in found) == found[0]["total"]


def test_a_list_is_narrowed_to_a_verdict(api):
    created = api.register()
    query = f"{SERVERS}?search={created['name']}"
    verdict = api("GET", query).json()["servers"][0]["verdict"]
    assert verdict == "unknown" or api.shared
    assert api("GET", f"{query}&verdict=").json()["total"] == 1
    if not api.shared:  # or a sweep may come between the two
        assert api("GET", f"{query}&verdict=unknown").json()["total"] == 1
        assert api("GET", f"{query}&verdict=healthy").json() == {
            "servers": [],
            "total": 0,
            "total_is": "exact",
            "next_cursor": None,
        }


@pytest.mark.parametrize("word", ["up", "HEALTHY", "healthy,gated"])
def test_a_verdict_that_cannot_be_is_refused(api, word):
    answer = api("GET", f"{SERVERS}?verdict={word}")
    assert (answer.status, answer.json()["details"][0]["path"]) == (400, "verdict")


def test_search_finds_part_of_a_name_or_display_name_in_any_case(api):
    word = api.new_name("Searched")
    by_name = api.register(name=f"{word}-x", display_name="plain")["id"]
    by_display = api.register(display_name=f"The {word.upper()} Ünit")["id"]
    for text in (word.lower(), word.upper(), word[3:]):
        found = api("GET", f"{SERVERS}?search={text}").json()["servers"]
        assert [server["id"] for server in found] == [by_name, by_display]
    found = api("GET", f"{SERVERS}?search={quote(f'{word} ünit')}").json()["servers"]
    assert [server["id"] for server in found] == [by_display]


@pytest.mark.parametrize(
    ("shown", "typed"),
    [
        ("Caf\u00e9 me\u0301te\u0301o", "cafe\u0301 m\u00e9t\u00e9o"),  # composed and decomposed
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),  # the final sigma
        ("οδυσσευς", "ΟΔΥΣΣΕΥΣ"),
        ("Straße", "STRASSE"),
        ("\uff21\uff22\uff23天気", "abc天気"),  # full width
        ("ﬁle server", "FILE"),  # a ligature
        ("100\uff05 safe", "100%"),  # a full-width percent sign is no pattern
        ("farm-ok", " farm ok  "),  # blanks that came along, and words
        ("Weather of Europe", "europe weather"),
        ("İstanbul", "i̇stanbul"),
        ("wea\u00adther", "weather"),  # a soft hyphen, which nobody sees
        ("\u2600 sun", "\u2600\ufe0f"),  # as a keyboard writes an emoji
    ],
)
def test_text_is_found_as_it_is_read(api, shown, typed):
    mark = api.new_name("read")
    made = api.register(name=mark, display_name=f"{mark} {shown}")["id"]
    api.register(name=f"{mark}-other", display_name="100x safe")
    found = api("GET", f"{SERVERS}?search={quote(f'{mark} {typed}')}").json()
    assert [server["id"] for server in found["servers"]] == [made]
    assert api("GET", f"{SERVERS}/{made}").json()["display_name"] == f"{mark} {shown}"


def test_every_word_of_a_search_has_to_be_there(api):
    mark = api.new_name("words")
    api.register(name=mark, display_name="forecasts of rain")
    for words, total in (("rain forecasts", 1), ("rain snow", 0), ("RAIN", 1), ("of", 1)):
        assert api("GET", f"{SERVERS}?search={quote(f'{mark} {words}')}").json()["total"] == total


def test_a_search_for_blanks_alone_is_none(api):
    api.register()
    assert api("GET", f"{SERVERS}?search=%20%E3%80%80&limit=1").json()["total"] >= 1


def test_a_list_is_narrowed_to_a_tag(api):
    mark = api.new_name("tagged")
    tags = [f" {mark}-Geo ", "Été", "%"], ["Ete"], None
    made = [api.register(name=f"{mark}-{n}", metadata={"tags": each})["id"] for n, each in enumerate(tags)]

    def ids(query: str) -> list[int]:
        page = api("GET", f"{SERVERS}?search={mark}&{query}").json()
        assert (page["total"], page["total_is"]) == (len(page["servers"]), "exact")
        return [server["id"] for server in page["servers"]]

    assert ids(f"tag={mark}-GEO") == ids(f"tag=%20{mark}-geo") == [made[0]]
    assert ids("tag=" + quote("E\u0301TE\u0301")) == ids("tag=%25") == [made[0]]
    assert ids("tag=ete") == [made[1]]
    assert ids(f"tag={mark}") == ids("tag=ge") == []  # a tag is found whole
    assert ids(f"tag={mark}-geo&type=official") == []
    assert ids("tag=") == made
    cursor = api("GET", f"{SERVERS}?tag=ete&limit=1").json()["next_cursor"]
    assert cursor is None or api("GET", f"{SERVERS}?tag=other&cursor={cursor}").status == 400


@pytest.mark.parametrize("query", [f"tag={'x' * 65}", "tag=%00", "tag=a&tag=b", "tags=x"])
def test_a_tag_that_cannot_be_is_refused(api, query):
    answer = api("GET", f"{SERVERS}?{query}")
    assert (answer.status, answer.json()["code"]) == (400, "VALIDATION_ERROR")


def test_a_search_does_not_reach_from_the_name_into_the_display_name(api):
    name = api.new_name("edge")
    api.register(name=name, display_name="next")
    assert api("GET", f"{SERVERS}?search={name}next").json()["total"] == 0


def test_a_cursor_goes_with_its_filters_only(api):
    word = api.new_name("cursor")
    for letter in "ab":
        api.register(name=f"{word}-{letter}")
    cursor = api("GET", f"{SERVERS}?search={word}&limit=1").json()["next_cursor"]
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    assert api("GET", f"{SERVERS}?cursor={cursor}").json()["servers"][0]["name"] == f"{word}-b"
    assert api("GET", f"{SERVERS}?cursor={cursor}&search={word}").status == 200
    refused = api("GET", f"{SERVERS}?cursor={cursor}&search=other")
    assert (refused.status, refused.json()["details"][0]["path"]) == (400, "cursor")
    tampered = api("GET", f"{SERVERS}?cursor={cursor[:-2]}AA")
    assert (tampered.status, tampered.json()["details"][0]["path"]) == (400, "cursor")


def test_detail_has_every_column_and_the_tools_in_order(api):
    sent = api.registration(
        api.new_name(),
        description="Forecasts",
        health_url="/health",
        version="1.0.0",
        metadata={"author": "Ann", "tags": ["b", "a"]},
        tools=[
            {
                "name": "zeta",
                "title": "Z",
                "description": "",
                "input_schema": {"type": "object", "properties": {"b": {"maximum": 9007199254740993}, "a": {}}},
                "output_schema": {"x": 1.0},
                "annotations": {"readOnlyHint": True},
                "category": "geo",
            },
            {"name": "alpha", "input_schema": {}},
        ],
    )
    created = api("POST", REGISTER, sent).json()
    detail = api("GET", f"{SERVERS}/{created['id']}").json()
    moments = [detail.pop(moment) for moment in ("created_at", "updated_at", "announced_at")]
    assert all(RFC_3339.fullmatch(moment) for moment in moments)
    for tool in detail["tools"]:
        assert RFC_3339.fullmatch(tool.pop("created_at"))
        assert tool.pop("id") > 0
    nothing = {"title": None, "description": None, "output_schema": None, "annotations": None, "category": None}
    assert detail["status"] in api.may_be("active")
    expected = sent | {
        "id": created["id"],
        "status": "active",
        "verdict": "unknown",
        "frozen": False,
        "owner": "default",
        "last_health_check": None,
        "checked_at": None,
        "last_check": None,
        "auth": None,
        "review": {"policy": "auto", "state": "approved", "digest": None, "left_out": 0},
        "observed": None,
        "endpoints": [
            {
                "url": sent["endpoint_url"],
                "health_url": "/health",
                "declared": True,
                "status": "unknown",
                "verdict": "unknown",
                "announced_at": moments[2],
                "lease_until": None,
                "retired_at": None,
                "conflict_at": None,
                "last_check": None,
                "evidence": None,
            }
        ],
        "metadata": {"author": "Ann", "repository_url": None, "documentation_url": None, "tags": ["b", "a"]},
        "tools": [sent["tools"][0], nothing | {"name": "alpha", "input_schema": {}}],
    }
    assert set(detail) == set(expected)
    assert api.unswept(detail) == api.unswept(expected)
    assert list(detail["tools"][0]["input_schema"]["properties"]) == ["b", "a"]


def test_metadata_that_was_not_sent_is_null(api):
    assert api("GET", f"{SERVERS}/{api.register()['id']}").json()["metadata"] is None


@pytest.mark.parametrize("id_", ["0", "007", "9223372036854775808", "%00", "1%0A", "%EF%BC%91", "x" * 101])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_what_is_neither_an_id_in_range_nor_a_name_is_refused(api, method, id_):
    answer = api(method, f"{SERVERS}/{id_}", {"status": "active"} if method == "PATCH" else None)
    assert (answer.status, answer.json()["code"]) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("id_", ["9223372036854775807", "-1", "1.0", "no-such-server", "no%2Fserver", "a%20b"])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_a_server_that_is_not_there_is_404(api, method, id_):
    answer = api(method, f"{SERVERS}/{id_}", {"status": "active"} if method == "PATCH" else None)
    assert (answer.status, answer.json()["code"]) == (404, "SERVER_NOT_FOUND")


@pytest.mark.parametrize("rest", ["", "/of.a-namespace"])
def test_a_server_is_read_changed_and_deleted_by_its_name(api, rest):
    name = api.new_name("named") + rest
    created = api.register(name=name)
    path = f"{SERVERS}/{quote(name, safe='')}"
    assert api("GET", path).json()["id"] == created["id"]
    assert api("GET", f"{path}/health").json()["server_id"] == created["id"]
    assert api("PATCH", path, {"status": "inactive"}).json()["status"] == "inactive"
    assert api("GET", f"{SERVERS}/{created['id']}").json()["status"] == "inactive"
    assert api("DELETE", path).status == 204
    assert api("GET", path).status == api("DELETE", path).status == api("GET", f"{path}/health").status == 404
    assert api("GET", f"{SERVERS}/{created['id']}").status == 404


def test_a_name_in_a_path_is_spelled_as_it_is_registered(api):
    created = api.register(name=api.new_name("Spelled"))
    for other in (created["name"].lower(), created["name"].replace("-", "_"), created["name"] + "-"):
        assert api("GET", f"{SERVERS}/{other}").status == 404


def test_what_mcp_says_of_a_tool_comes_back_as_it_was_sent(api):
    more = {"_meta": {"z": 1, "a": [1.0, None]}, "icons": [{"src": "é\u2028"}], "execution": {"x": 9007199254740993}}
    sent = {"name": "t", "title": "T", "inputSchema": {"type": "object"}, **more}
    tools = [sent, {"name": "u", "input_schema": {}}]
    created = api.register(tools=tools)
    told, plain = api("GET", f"{SERVERS}/{created['id']}").json()["tools"]
    assert {key: told[key] for key in more} == more
    assert list(told["_meta"]) == ["z", "a"]
    assert (told["name"], told["input_schema"]) == ("t", {"type": "object"})
    assert not plain.keys() & more.keys()
    # What changes or goes is replaced.
    body = api.registration(created["name"], tools=[{**sent, "_meta": {}}])
    assert api("PUT", REGISTER, body).json()["result"] == "updated"
    assert api("GET", f"{SERVERS}/{created['id']}").json()["tools"][0]["_meta"] == {}
    assert api("PUT", REGISTER, body).json()["result"] == "unchanged"


def test_an_unknown_field_elsewhere_is_still_refused_by_name(api):
    for fields, path in (({"_meta": {}}, "_meta"), ({"metadata": {"_meta": {}}}, "metadata._meta")):
        answer = api("POST", REGISTER, api.registration(**fields))
        assert (answer.status, [fault["path"] for fault in answer.json()["details"]]) == (400, [path])


def test_an_operator_takes_a_server_out_and_puts_it_back(api):
    created = api.register()
    for status in ("inactive", "inactive", "active"):
        answer = api("PATCH", f"{SERVERS}/{created['id']}", {"status": status})
        assert answer.status == 200
        changed = answer.json()
        assert RFC_3339.fullmatch(changed.pop("updated_at"))
        assert changed == created | {"status": status}
        assert api("GET", f"{SERVERS}/{created['id']}").json()["status"] in api.may_be(status)


def test_a_change_that_changes_nothing_is_no_change(api):
    created = api.register()
    first, second = (api("PATCH", f"{SERVERS}/{created['id']}", {"status": "inactive"}).json() for _ in range(2))
    assert api.unswept(first) == api.unswept(second)


@pytest.mark.parametrize(
    "body", [{}, {"status": "error"}, {"status": None}, {"status": "active", "name": "x"}, [], b"", b"{"]
)
def test_only_the_status_can_be_changed_and_only_to_two_values(api, body):
    created = api.register()
    answer = api("PATCH", f"{SERVERS}/{created['id']}", body)
    assert (answer.status, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert api("GET", f"{SERVERS}/{created['id']}").json()["status"] in api.may_be("active")


def test_a_deleted_server_is_gone_and_its_name_is_free(api):
    created = api.register()
    answer = api("DELETE", f"{SERVERS}/{created['id']}")
    assert (answer.status, answer.body) == (204, b"")
    assert api("GET", f"{SERVERS}/{created['id']}").status == 404
    assert api("DELETE", f"{SERVERS}/{created['id']}").status == 404
    assert api.register(name=created["name"])["id"] != created["id"]


def test_a_name_that_is_held_cannot_come_back_for_so_long(api):
    created = api.register()
    path = f"{SERVERS}/{created['id']}"
    for query in ("hold=59", "hold=604801", "hold=", "hold=60&hold=60", "held=60"):
        assert api("DELETE", f"{path}?{query}").status == 400
    assert api("DELETE", f"{path}?hold=60").status == 204
    assert api("DELETE", f"{path}?hold=60").status == 404
    for method in ("POST", "PUT"):
        answer = api(method, REGISTER, api.registration(created["name"]))
        assert (answer.status, answer.json()["code"]) == (409, "HELD_NAME")
        headers = {name.lower(): value for name, value in answer.headers.items()}
        assert 0 < int(headers["retry-after"]) <= 60
    assert api("GET", f"{SERVERS}?search={created['name']}").json()["total"] == 0
    # An operator thinks better of it.
    assert api("DELETE", f"{path}?hold=0").status == 404
    assert api("DELETE", f"{SERVERS}/{created['name']}?hold=0").status == 204
    back = api.register(name=created["name"])
    assert api("DELETE", f"{SERVERS}/{created['name']}?hold=0").status == 404
    assert api("GET", f"{SERVERS}/{back['id']}").status == 200
