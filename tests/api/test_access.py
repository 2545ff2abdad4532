"""GET /api/registry/whoami, and teams, tokens, trusted issuers and the audit, by the bootstrap administrator."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from mcp_registry.access import tokens

ACCESS = "/api/registry"
TEAMS = f"{ACCESS}/teams"
TOKENS = f"{ACCESS}/tokens"
ISSUERS = f"{ACCESS}/issuers"
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
# No resolver has to be asked for it, and it may be registered nowhere but on the machine of the tests.
ISSUER = "https://issuer.example"


@pytest.fixture
def team(api) -> Iterator[str]:
    """A team that the test has for itself; whatever is its own by the end is removed with it."""
    name = api.new_name("team")
    assert api("PUT", f"{TEAMS}/{name}", {"contact": "team@example.com"}).status == 201
    yield name
    for member in api("GET", f"{TEAMS}/{name}").json()["members"]:
        assert api("DELETE", f"{ACCESS}/{member['kind']}s/{member['id']}").status == 204
    api("DELETE", f"{TEAMS}/{name}")


def audited(api, target: str) -> list[tuple[str, object, object]]:
    entries = api("GET", f"{ACCESS}/audit?target={target}").json()["entries"]
    return [(entry["action"], entry["before"], entry["after"]) for entry in entries]


def faults(answer) -> dict[str, str]:
    assert (answer.status, answer.json()["code"]) == (400, "VALIDATION_ERROR"), answer.body
    return {fault["path"]: fault["type"] for fault in answer.json().get("details", [])}


def trust(of_team: str, **fields: object) -> dict[str, object]:
    claims = {"sub": "repo:acme/*"}
    return {"issuer": ISSUER, "audience": "registry", "claims": claims, "team": of_team, "role": "publisher"} | fields


def test_the_bootstrap_administrator_is_told_who_it_is(api):
    told = api("GET", f"{ACCESS}/whoami").json()
    contact = api("GET", f"{TEAMS}/default").json()["contact"]
    assert told.pop("name")
    assert told == {"role": "admin", "team": "default", "contact": contact, "expires_at": None}


# ------------------------------------------------------------------ teams


def test_a_team_is_made_and_set_as_a_whole(api):
    name = api.new_name("team")
    sent = {"contact": "#payments", "prefixes": [f"{name}/", f"{name}-"]}
    made = api("PUT", f"{TEAMS}/{name}", sent)
    assert made.status == 201
    told = made.json()
    assert RFC_3339.fullmatch(told.pop("created_at")) and RFC_3339.fullmatch(told.pop("updated_at"))
    assert told == {"name": name, **sent, "prefixes": sorted(sent["prefixes"]), "servers": 0, "members": []}
    assert api("GET", f"{TEAMS}/{name}").json() == made.json()
    listed = {team["name"]: team for team in api("GET", TEAMS).json()["teams"]}
    assert listed[name] == {key: value for key, value in made.json().items() if key != "members"}
    again = api("PUT", f"{TEAMS}/{name}", sent)
    assert (again.status, again.json()) == (200, made.json())
    changed = api("PUT", f"{TEAMS}/{name}", {"prefixes": [f"{name}-"]})
    assert (changed.status, changed.json()["contact"], changed.json()["prefixes"]) == (200, None, [f"{name}-"])
    assert api("DELETE", f"{TEAMS}/{name}").status == 204
    assert api("GET", f"{TEAMS}/{name}").json()["code"] == "TEAM_NOT_FOUND"
    assert api("DELETE", f"{TEAMS}/{name}").status == 404
    assert audited(api, f"team:{name}") == [
        ("team.set", None, {"contact": "#payments", "prefixes": sorted(sent["prefixes"])}),
        (
            "team.set",
            {"contact": "#payments", "prefixes": sorted(sent["prefixes"])},
            {"contact": None, "prefixes": [f"{name}-"]},
        ),
        ("team.removed", {"contact": None, "prefixes": [f"{name}-"]}, None),
    ]


def test_a_prefix_is_one_teams(api, team):
    other = api.new_name("team")
    try:
        assert api("PUT", f"{TEAMS}/{team}", {"prefixes": [f"{team}-"]}).status == 200
        for prefix in (f"{team}-", f"{team}_"):  # which reads like it
            taken = api("PUT", f"{TEAMS}/{other}", {"prefixes": [f"{other}/", prefix]})
            assert (taken.status, taken.json()["code"]) == (409, "DUPLICATE_PREFIX")
            assert team in taken.json()["error"]
            assert [fault["path"] for fault in taken.json()["details"]] == ["prefixes.1"]
            assert api("GET", f"{TEAMS}/{other}").status == 404
        # One's own may be spelled otherwise.
        assert api("PUT", f"{TEAMS}/{team}", {"prefixes": [f"{team}_"]}).json()["prefixes"] == [f"{team}_"]
        assert api("PUT", f"{TEAMS}/{team}", {}).json()["prefixes"] == []
        assert api("PUT", f"{TEAMS}/{other}", {"prefixes": [f"{team}-"]}).status == 201
    finally:
        api("DELETE", f"{TEAMS}/{other}")


VALUES = {f"prefixes.{number}": "value" for number in range(6)}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"contact": ""}, {"contact": "length"}),
        ({"contact": "x" * 201}, {"contact": "length"}),
        ({"contact": " "}, {"contact": "value"}),
        ({"contact": "a\nb"}, {"contact": "value"}),
        ({"contact": 1, "prefixes": "x-"}, {"contact": "type", "prefixes": "type"}),
        ({"prefixes": ["x", "X-", "x-", "-x-", "ok.", "o_", "O/"]}, {"prefixes.0": "length"}),
        ({"prefixes": ["X-", "x-y", "-x-", "a//", "a/b/", "c/-", "ok.", "a/", "a/b-"]}, VALUES),
        ({"prefixes": ["pay1-", "payl_"]}, {"prefixes.1": "repeated"}),
        ({"prefixes": ["pay-", "p.a-y_", "pay/"]}, {"prefixes.1": "repeated"}),
        ({"prefixes": [f"x{n}-" for n in range(101)]}, {"prefixes": "length"}),
        ({"members": [], "name": "x"}, {"members": "unknown", "name": "unknown"}),
        ([], {}),
    ],
)
def test_what_is_no_team_is_refused_by_field(api, sent, expected):
    assert faults(api("PUT", f"{TEAMS}/never", sent)) == expected


def test_members_follow_from_tokens_and_issuers(api, team):
    refused = api("PUT", f"{TEAMS}/{team}", {"members": []})
    (fault,) = refused.json()["details"]
    assert fault["message"].startswith("Members follow from tokens and issuers")
    token = api("POST", TOKENS, {"name": "ci", "team": team, "role": "publisher"}).json()
    issuer = api.new_name("issuer")
    assert api("PUT", f"{ISSUERS}/{issuer}", trust(team, role="reader")).status == 201
    assert api("GET", f"{TEAMS}/{team}").json()["members"] == [
        {
            "kind": "token",
            "id": token["id"],
            "name": "ci",
            "role": "publisher",
            "expires_at": token["expires_at"],
            "last_used_at": None,
        },
        {"kind": "issuer", "id": issuer, "issuer": ISSUER, "role": "reader"},
    ]


@pytest.mark.parametrize("name", ["A", "-a", "a-", "a.b", "a" * 64, "%00", "%C3%A9"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_name_that_no_team_can_have_is_refused(api, method, name):
    assert faults(api(method, f"{TEAMS}/{name}", {} if method == "PUT" else None)) == {"team": "value"}


def test_a_team_that_owns_something_stays(api, team):
    token = api("POST", TOKENS, {"name": "ci", "team": team, "role": "reader"}).json()
    issuer = api.new_name("issuer")
    assert api("PUT", f"{ISSUERS}/{issuer}", trust(team)).status == 201
    refused = api("DELETE", f"{TEAMS}/{team}")
    assert (refused.status, refused.json()["code"]) == (409, "TEAM_IN_USE")
    assert "1 token, 1 issuer" in refused.json()["error"]
    assert api("DELETE", f"{TOKENS}/{token['id']}").status == 204
    assert api("DELETE", f"{ISSUERS}/{issuer}").status == 204
    # What was revoked goes along.
    assert api("DELETE", f"{TEAMS}/{team}").status == 204
    assert api("GET", f"{TOKENS}/{token['id']}").json()["code"] == "TOKEN_NOT_FOUND"
    assert api("PUT", f"{TEAMS}/{team}", {}).status == 201


def test_the_team_default_is_never_removed(api):
    refused = api("DELETE", f"{TEAMS}/default")
    assert (refused.status, refused.json()["code"]) == (409, "TEAM_IN_USE")


# ------------------------------------------------------------------ tokens


def test_a_token_is_told_once(api, team):
    answer = api("POST", TOKENS, {"name": "ci of payments", "team": team, "role": "publisher", "expires_in_days": 7.0})
    assert answer.status == 201
    made = answer.json()
    parsed = tokens.parse(made["token"])
    assert parsed is not None and parsed.id == made["id"]
    assert {made["name"], made["team"], made["role"]} == {"ci of payments", team, "publisher"}
    assert RFC_3339.fullmatch(made["created_at"]) and RFC_3339.fullmatch(made["expires_at"])
    shown = api("GET", f"{TOKENS}/{made['id']}").json()
    secret = made.pop("token")
    assert shown.pop("created_by")
    assert shown == {**made, "last_used_at": None, "revoked_at": None}
    listed = api("GET", f"{TOKENS}?team={team}")
    assert [token["id"] for token in listed.json()["tokens"]] == [made["id"]]
    assert secret not in listed.body.decode() + str(audited(api, f"token:{made['id']}"))
    for _ in range(2):
        assert api("DELETE", f"{TOKENS}/{made['id']}").status == 204
    revoked = api("GET", f"{TOKENS}/{made['id']}").json()["revoked_at"]
    assert RFC_3339.fullmatch(revoked)
    told = {"name": "ci of payments", "team": team, "role": "publisher", "expires_at": made["expires_at"]}
    assert audited(api, f"token:{made['id']}") == [
        ("token.made", None, told),
        ("token.revoked", {"revoked_at": None}, {"revoked_at": revoked}),
    ]


def test_tokens_are_listed_page_by_page(api, team):
    made = sorted(api("POST", TOKENS, {"name": f"{n}", "team": team, "role": "reader"}).json()["id"] for n in range(3))
    first = api("GET", f"{TOKENS}?team={team}&limit=2").json()
    assert ([token["id"] for token in first["tokens"]], first["next_after"]) == (made[:2], made[1])
    second = api("GET", f"{TOKENS}?team={team}&limit=2&after={first['next_after']}").json()
    assert ([token["id"] for token in second["tokens"]], second["next_after"]) == (made[2:], None)
    assert {token["id"] for token in api("GET", f"{TOKENS}?limit=1000").json()["tokens"]} >= set(made)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, {"name": "missing", "role": "missing"}),
        ({"name": "x", "role": "root"}, {"role": "enum"}),
        ({"name": "", "role": "reader"}, {"name": "length"}),
        ({"name": "x" * 101, "role": "reader"}, {"name": "length"}),
        ({"name": "a\x1b[0m", "role": "reader"}, {"name": "value"}),
        ({"name": "x", "role": "reader", "expires_in_days": 0}, {"expires_in_days": "value"}),
        ({"name": "x", "role": "reader", "expires_in_days": 367}, {"expires_in_days": "value"}),
        ({"name": "x", "role": "reader", "expires_in_days": True}, {"expires_in_days": "type"}),
        ({"name": "x", "role": "reader", "expires_in_days": 1.5}, {"expires_in_days": "type"}),
        ({"name": "x", "role": "reader", "team": "No"}, {"team": "value"}),
        ({"name": "x", "role": "reader", "id": "mine"}, {"id": "unknown"}),
        ([], {}),
    ],
)
def test_what_is_no_wish_for_a_token_is_refused_by_field(api, sent, expected):
    assert faults(api("POST", TOKENS, sent)) == expected


def test_a_token_for_a_team_that_is_not_there_is_not_made(api):
    refused = api("POST", TOKENS, {"name": "x", "role": "reader", "team": "api-suite-nobody"})
    assert (refused.status, refused.json()["code"]) == (404, "TEAM_NOT_FOUND")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_token_that_is_not_there_is_not_found(api, method):
    assert api(method, f"{TOKENS}/{'0' * 12}").json()["code"] == "TOKEN_NOT_FOUND"
    assert faults(api(method, f"{TOKENS}/1%00")) == {"id": "value"}


# ------------------------------------------------------------------ trusted issuers


def test_an_issuer_is_trusted_set_and_trusted_no_more(api, team):
    id_ = api.new_name("issuer")
    sent = trust(team)
    made = api("PUT", f"{ISSUERS}/{id_}", sent)
    assert made.status == 201
    told = made.json()
    assert RFC_3339.fullmatch(told.pop("created_at")) and RFC_3339.fullmatch(told.pop("updated_at"))
    assert told == {"id": id_, **sent}
    assert api("GET", f"{ISSUERS}/{id_}").json() == made.json()
    assert made.json() in api("GET", ISSUERS).json()["issuers"]
    again = api("PUT", f"{ISSUERS}/{id_}", sent)
    assert (again.status, again.json()) == (200, made.json())
    changed = api("PUT", f"{ISSUERS}/{id_}", trust(team, role="reader", claims={"sub": "repo:acme/site"}))
    assert (changed.status, changed.json()["role"]) == (200, "reader")
    assert api("DELETE", f"{ISSUERS}/{id_}").status == 204
    for method in ("GET", "DELETE"):
        assert api(method, f"{ISSUERS}/{id_}").json()["code"] == "ISSUER_NOT_FOUND"
    after = trust(team, role="reader", claims={"sub": "repo:acme/site"})
    assert audited(api, f"issuer:{id_}") == [
        ("issuer.set", None, sent),
        (
            "issuer.set",
            {"claims": {"sub": "repo:acme/*"}, "role": "publisher"},
            {"claims": {"sub": "repo:acme/site"}, "role": "reader"},
        ),
        ("issuer.removed", after, None),
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"issuer": "https://issuer.example/?a"}, {"issuer": "value"}),
        ({"issuer": "https://issuer.example/#a"}, {"issuer": "value"}),
        ({"issuer": "https://user@issuer.example"}, {"issuer": "value"}),
        ({"issuer": "http://issuer.example"}, {"issuer": "value"}),
        ({"issuer": "https://169.254.169.254"}, {"issuer": "blocked"}),
        ({"issuer": "https://issuer.example:5432"}, {"issuer": "blocked"}),
        ({"issuer": "https://issuer.example/" + "x" * 500}, {"issuer": "length"}),
        ({"claims": {}}, {"claims": "length"}),
        ({"claims": None}, {"claims": "missing"}),
        ({"claims": {"sub": 1, "x" * 101: "x"}}, {"claims.sub": "type", f"claims.{'x' * 101}": "length"}),
        ({"claims": {"sub": "**"}}, {"claims.sub": "value"}),
        ({"claims": {"aud": "x"}}, {"claims.aud": "value"}),
        ({"audience": ""}, {"audience": "length"}),
        ({"team": "No", "audience": "a\u202eb"}, {"team": "value", "audience": "value"}),
        ({"role": None, "kid": "1"}, {"role": "missing", "kid": "unknown"}),
    ],
)
def test_what_is_no_trusted_issuer_is_refused_by_field(api, fields, expected):
    assert faults(api("PUT", f"{ISSUERS}/never", trust("default", **fields))) == expected


def test_an_issuer_for_a_team_that_is_not_there_is_not_trusted(api):
    refused = api("PUT", f"{ISSUERS}/never", trust("api-suite-nobody"))
    assert (refused.status, refused.json()["code"]) == (404, "TEAM_NOT_FOUND")


# ------------------------------------------------------------------ the audit


def test_an_entry_says_who_did_what_when_and_from_where(api, team):
    (entry,) = api("GET", f"{ACCESS}/audit?target=team:{team}&action=team.set").json()["entries"]
    assert set(entry) == {
        *("sequence", "at", "actor", "role", "team", "action", "target", "before", "after", "request_id", "address")
    }
    assert entry["actor"] == api("GET", f"{ACCESS}/whoami").json()["name"]
    assert (entry["role"], entry["team"]) == ("admin", "default")
    assert RFC_3339.fullmatch(entry["at"]) and entry["request_id"] and entry["address"]


def test_the_audit_is_read_page_by_page(api, team):
    for number in range(3):
        assert api("PUT", f"{TEAMS}/{team}", {"contact": f"number {number}"}).status == 200
    query = f"{ACCESS}/audit?target=team:{team}&limit=3"
    first = api("GET", query).json()
    second = api("GET", f"{query}&after={first['next_after']}").json()
    told = [entry["after"]["contact"] for entry in first["entries"] + second["entries"]]
    assert told == ["team@example.com", "number 0", "number 1", "number 2"]
    assert (len(first["entries"]), second["next_after"]) == (3, None)
    numbers = [entry["sequence"] for entry in first["entries"] + second["entries"]]
    assert numbers == sorted(set(numbers))
    actor = api("GET", f"{ACCESS}/whoami").json()["name"]
    of_actor = api("GET", f"{ACCESS}/audit?actor={actor}&after={numbers[0]}&limit=1000").json()["entries"]
    assert set(numbers[1:]) <= {entry["sequence"] for entry in of_actor}
    assert api("GET", f"{ACCESS}/audit?actor=nobody").json() == {"entries": [], "next_after": None}


@pytest.mark.parametrize(
    ("route", "parameter", "kind"),
    [
        *((route, "x=1", "unknown") for route in ("audit", "tokens", "teams", "issuers", "whoami")),
        *((route, f"limit={limit}", "value") for route in ("audit", "tokens") for limit in ("0", "1001", "x", "")),
        *((route, "limit=1&limit=1", "repeated") for route in ("audit", "tokens")),
        *(("audit", f"after={after}", "value") for after in ("-1", "x", "", "01", 2**63)),
        ("audit", "action=team.took", "enum"),
        ("audit", "actor=%00", "value"),
        ("audit", "target=a%FF", "value"),
        ("audit", f"target={'x' * 201}", "length"),
        ("audit", f"actor={'x' * 601}", "length"),
        ("tokens", "team=A", "value"),
        ("tokens", "after=1", "value"),
    ],
)
def test_a_parameter_that_is_not_right_is_refused(api, route, parameter, kind):
    name = parameter.partition("=")[0]
    assert faults(api("GET", f"{ACCESS}/{route}?{parameter}")) == {name: kind}
