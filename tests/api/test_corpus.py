"""The corpus of real, odd and hostile input: the sample in tests/corpus, and the whole where it lies beside the clone.

For every case: a status that is right, a strict JSON body with `error` and `code` on every refusal, no words of a
driver, no row left by a refusal, and a list and a detail that still answer after every registration.

The names of its servers get the prefix of the run, and its credentials become those of the stack. A stack that others
use is asked the sample only, and gets no endpoint that anybody has.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from base64 import b64decode, b64encode
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from local.run import LOOPBACK
from local.server import MAX_HEAD
from mcp_registry.catalogue import names
from tests.api.transport import Secret
from tests.conftest import BASIC, ROOT, SLOWEST, Answer, Api

SAMPLE = ROOT / "tests" / "corpus"
WHOLE = ROOT.parent / "shared" / "corpus"
CORPUS = WHOLE if WHOLE.is_dir() else SAMPLE

REGISTER = "/api/registry/register"
SERVERS = "/api/registry/servers"
REQUESTS = ("json_bodies", "fields", "stored_output", "list_query", "detail_id", "routing", "auth")

# Nothing a client sends may take as long as the deadline of a request; pg_sleep(5) in a search would. The bar of one
# second is no assertion, because a busy machine would fail it: the slowest answer is told at the end of the run.
SECONDS = 4.0

# Where the contract is wider than a case assumes, the contract decides; the reason stands beside.
WIDER = {
    "fields-013": (201, "null means absent everywhere, and tools may be absent"),
    "fields-061": (201, "a tool's description may be null"),
    "fields-098": (201, "URLs in metadata may have 2,048 characters"),
    "fields-101": (201, "a tool's name may have 128 characters"),
}
WIDER_EDGES = {"endpoint-501-chars.json": "endpoint_url may have 2,048 characters"}

DRIVER_WORDS = ("psycopg", "sqlstate", "traceback", "relation ", "syntax error at", "postgres", "22p0", "pg_catalog")


def load(name: str) -> list[dict[str, Any]]:
    return json.loads((CORPUS / f"{name}.json").read_text())


def test_the_whole_corpus_is_used():
    if not WHOLE.is_dir():
        pytest.skip("the whole corpus is not beside this clone: its sample in tests/corpus is used")
    for name in (*REQUESTS, "names", "ssrf_urls", "ssrf_dns"):
        assert len(load(name)) > len(json.loads((SAMPLE / f"{name}.json").read_text())), name


def joined(parts: list[tuple[str, int]]) -> str:
    return "".join(text * times for text, times in parts)


def body_of(api: Api, request: dict[str, Any]) -> bytes | None:
    if "body_hex" in request:
        return of_this_run(api, bytes.fromhex(request["body_hex"]))
    body = joined(request["body_parts"]) if "body_parts" in request else request.get("body")
    return None if body is None else of_this_run(api, body.encode("utf-8", "surrogatepass"))


def headers_of(api: Api, request: dict[str, Any]) -> list[tuple[str, str]]:
    headers = {name.lower(): value for name, value in request.get("headers", {}).items()}
    if request["method"] in ("POST", "PUT", "PATCH"):
        headers.setdefault("content-type", "application/json")
    if "auth_parts" in request:
        headers["authorization"] = joined(request["auth_parts"])
    elif (auth := request.get("auth", BASIC)) is not None:
        headers["authorization"] = of_this_stack(api, auth)
    return list(headers.items())


def path_of(request: dict[str, Any]) -> str:
    query = joined(request["query_parts"]) if "query_parts" in request else request.get("query", "")
    return request["path"] + (f"?{query}" if query else "")


# Every body of the corpus that is a registration begins so.
NAME = re.compile(rb'\s*\{\s*"name":\s*"([^"\\]+)"')
LOOPBACK_ENDPOINT = re.compile(rb'"endpoint_url":\s*"(http://(?:127\.0\.0\.1|localhost)(?::[0-9]+)?)')
RIGHT = BASIC.removeprefix("Basic ")


def prefixed(api: Api, name: str) -> str:
    """A name of the corpus in this run, a faulty one as it is. One that is there for its length keeps that."""
    if names.fault(name[: names.MAX_LENGTH]) is not None:
        return name
    room = names.MAX_LENGTH - len(api.prefix) - 1
    return f"{api.prefix}-{name if len(name) <= room else name[len(api.prefix) + 1 :]}"


def of_this_run(api: Api, body: bytes) -> bytes:
    """A body of the corpus under a name of this run, and with an endpoint that the stack accepts."""
    if match := NAME.match(body):
        start, end = match.span(1)
        body = (
            body[:start]
            + prefixed(api, match[1].decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
            + body[end:]
        )
    if api.shared and (match := LOOPBACK_ENDPOINT.search(body)):
        body = body.replace(match[1], api.endpoint.encode())
    return body


def of_this_stack(api: Api, credentials: str) -> str:
    """Credentials of the corpus, made of admin:password, made of those of the stack instead."""
    if api.basic == BASIC:
        return credentials
    right = api.basic.removeprefix("Basic ")
    if RIGHT in credentials:
        return Secret(credentials.replace(RIGHT, right))
    try:
        decoded = b64decode(credentials.removeprefix("Basic "), validate=True)
    except ValueError:
        return credentials
    if not decoded.startswith(b64decode(RIGHT)):
        return credentials
    return Secret("Basic " + b64encode(decoded.replace(b64decode(RIGHT), b64decode(right))).decode())


def send(api: Api, request: dict[str, Any], in_process: Any) -> Answer:
    """Send a case's request. A false base64 flag exists only in an event, so that one goes to the handler."""
    body = body_of(api, request)
    if request.get("isBase64Encoded") and "body" in request:
        proxy = {
            "httpMethod": request["method"],
            "resource": request["path"],
            "requestContext": {"requestId": "corpus"},
            "headers": dict(headers_of(api, request)),
            "body": request["body"],
            "isBase64Encoded": True,
        }
        result: Any = asyncio.run(in_process.invoke("RegisterFunction", proxy))
        return Answer(result["statusCode"], {"content-type": "application/json"}, result["body"].encode(), 0.0)
    return api.send(request["method"], path_of(request), headers_of(api, request), body or b"")


def size_of_head(api: Api, request: dict[str, Any]) -> int:
    """The bytes of a request line and of the headers, as the case gives them."""
    headers = sum(len(name) + len(value) for name, value in headers_of(api, request))
    return len(request["method"]) + len(path_of(request)) + headers


def check_refusal(answer: Answer) -> None:
    error = answer.json()
    assert isinstance(error["error"], str)
    assert error["error"]
    assert isinstance(error["code"], str)
    assert set(error) <= {"error", "code", "details"}
    assert not [word for word in DRIVER_WORDS if word in answer.body.decode().lower()]


def check_created(api: Api, sent: Any, answer: Answer, checks: list[str]) -> None:
    """A created server is listed, reads back as it was sent, and goes again."""
    created = answer.json()
    detail = api("GET", f"{SERVERS}/{created['id']}")
    try:
        assert detail.status == 200
        assert detail.headers["content-type"] == "application/json"
        assert api("GET", f"{SERVERS}?search={quote(created['name'])}").status == 200
        assert created["status"] == "active"
        assert_reads_back(sent, detail.json())
        if "id_not_1" in checks:
            assert created["id"] != 1
    finally:
        assert api("DELETE", f"{SERVERS}/{created['id']}").status == 204


def assert_reads_back(sent: Any, got: Any, path: str = "") -> None:
    """Everything that was sent is there, to the digit; null and an empty link are absent."""
    if isinstance(sent, dict) and not path.endswith("_schema"):
        for key, value in sent.items():
            ours = {"inputSchema": "input_schema", "outputSchema": "output_schema"}.get(key, key)
            if value is None or (value == "" and str(ours).endswith("_url")):
                assert got[ours] in (None, [])
            else:
                assert_reads_back(value, got[ours], f"{path}.{ours}")
    elif isinstance(sent, list) and not path.endswith("_schema"):
        assert len(sent) == len(got), path
        for place, value in enumerate(sent):
            assert_reads_back(value, got[place], f"{path}.{place}")
    else:
        assert json.dumps(sent) == json.dumps(got), path  # as text: 1 is not 1.0, and keys keep their order


def cases(*files: str) -> list[Any]:
    """The cases of some files, those that are not in the sample marked."""
    found: list[Any] = []
    for name in files:
        sample = {case["id"] for case in json.loads((SAMPLE / f"{name}.json").read_text())}
        marks = {case["id"]: () if case["id"] in sample else (pytest.mark.whole,) for case in load(name)}
        found += [pytest.param(case, id=case["id"], marks=marks[case["id"]]) for case in load(name)]
    return found


@pytest.mark.parametrize("case", cases(*REQUESTS))
def test_every_request_gets_an_answer_that_is_right(case, api, request, monkeypatch):
    asked = case["request"]
    in_process = None if request.config.getoption("--api-url") else request.getfixturevalue("in_process")
    if (asked.get("env") or (asked.get("isBase64Encoded") and "body" in asked)) and not api.in_process:
        pytest.skip("needs another environment, or an event that no gateway sends: in process only")
    for name, value in (asked.get("env") or {}).items():
        monkeypatch.setenv(name, value or "")
    if asked["method"] == "" and not api.in_process:
        pytest.skip("HTTP has no empty method: in process only")
    if case.get("fixture") == "search":
        if not api.shared:
            request.getfixturevalue("search_fixture")
        elif case.get("expect_total"):
            pytest.skip("counts a catalogue that holds five servers and no other")
    accept = [WIDER[case["id"]][0]] if case["id"] in WIDER else case["accept"]

    answer = send(api, asked, in_process)

    if not api.in_process and size_of_head(api, asked) > MAX_HEAD:  # the gateway answers before anybody is asked
        assert answer.status == 431, (case["why"], answer.body[:500])
        check_refusal(answer)
        return
    assert answer.status in accept, (case["why"], answer.body[:500])
    if api.shared and answer.seconds >= SECONDS:  # once, it may have met a cold start
        assert send(api, asked, in_process).seconds < SECONDS, case["why"]
    else:
        assert answer.seconds < SECONDS, case["why"]
    request.config.stash.setdefault(SLOWEST, []).append((answer.seconds, case["id"]))
    if answer.status >= 400:
        if asked["method"] == "HEAD":
            assert answer.body == b""
        else:
            check_refusal(answer)
        for header, value in case.get("expect_header", {}).items():
            assert value in answer.headers[header].split(", ")
    if answer.status == 201:
        body = body_of(api, asked)
        assert body is not None
        check_created(api, json.loads(body), answer, case.get("check", []))
    if answer.status == 200 and "expect_total" in case:
        assert answer.json()["total"] == case["expect_total"]
    if answer.status == 200 and "max_total" in case:
        assert answer.json()["total"] <= case["max_total"]


@pytest.mark.parametrize("case", cases("json_bodies", "fields"))
def test_a_refusal_leaves_no_row(case, in_process):
    asked = case["request"]
    api = Api(in_process.send, in_process=True)
    before = api("GET", f"{SERVERS}?limit=1").json()["total"]
    answer = send(api, asked, in_process)
    if answer.status == 201:
        api("DELETE", f"{SERVERS}/{answer.json()['id']}")
    assert api("GET", f"{SERVERS}?limit=1").json()["total"] == before


@pytest.fixture
def search_fixture(api: Api):
    """Exactly the five servers that the search cases count, and so for a catalogue of the tests' own only."""
    assert not api.shared
    for server in api("GET", f"{SERVERS}?limit=1000").json()["servers"]:
        api("DELETE", f"{SERVERS}/{server['id']}")
    fixtures = json.loads((CORPUS / "fixtures.json").read_text())
    # The prefix holds neither the underscore nor the percent sign that the cases look for.
    made = [
        api("POST", REGISTER, api.registration(**server | {"name": prefixed(api, server["name"])}))
        for server in fixtures["search"]
    ]
    assert [answer.status for answer in made] == [201] * len(made)
    yield
    for answer in made:
        api("DELETE", f"{SERVERS}/{answer.json()['id']}")


def files(folder: str) -> list[Any]:
    """The registrations of a folder, those that are not in the sample marked."""
    sample = {path.name for path in (SAMPLE / folder).iterdir()}
    paths = sorted(path for path in (CORPUS / folder).glob("*.json") if path.name != "INDEX.json")
    return [
        pytest.param(path, id=path.stem, marks=() if path.name in sample else (pytest.mark.whole,)) for path in paths
    ]


@pytest.mark.parametrize("path", files("real"))
def test_a_real_server_registers_once_and_reads_back_as_it_was_sent(path, api):
    body = of_this_run(api, path.read_bytes())
    first = api("POST", REGISTER, body)
    assert first.status == 201, first.body
    again = api("POST", REGISTER, body)
    assert (again.status, again.json()["code"]) == (409, "DUPLICATE_SERVER")
    same = api("PUT", REGISTER, body)
    assert (same.status, same.json()["result"]) == (200, "unchanged")
    check_created(api, json.loads(body), first, [])


@pytest.mark.parametrize("path", files("edge"))
def test_an_edge_case_is_accepted_or_refused_as_expected(path, api):
    (entry,) = (e for e in json.loads((CORPUS / "edge" / "INDEX.json").read_text()) if e["file"] == path.name)
    body = of_this_run(api, path.read_bytes())
    answer = api("POST", REGISTER, body)
    expected = entry["expect"]
    if answer.status == 201:
        assert "accept" in expected or entry["file"] in WIDER_EDGES, entry["why"]
        check_created(api, json.loads(body), answer, [])
    else:
        assert answer.status == 400, answer.body
        assert "400" in expected, entry["why"]
        check_refusal(answer)


@pytest.mark.parametrize("case", cases("names"))
def test_look_alike_and_reserved_names_are_kept_out(case, api):
    made = []
    if case["existing"] is not None:
        made.append(api("POST", REGISTER, api.registration(prefixed(api, case["existing"]))))
        assert made[0].status == 201, made[0].body
    answer = api("POST", REGISTER, api.registration(prefixed(api, case["new"])))
    made += [answer] if answer.status == 201 else []
    for created in made:
        api("DELETE", f"{SERVERS}/{created.json()['id']}")
    expected = {"conflict": 409, "reject": 400, "reserved": 400, "allow": 201}[case["verdict"]]
    assert answer.status == expected, case["why"]


# Kinds of which an open network turns some cases. Every other kind that the corpus calls closed stays closed: metadata
# and link-local addresses are never open, Lambda's own services are recognised by their ports and names, and an IPv4
# address is not opened inside IPv6.
TURNED = {"loopback", "private", "names"}


def opened_by(networks: str, url: str) -> bool:
    """Whether a closed case of these kinds is open where these networks are.

    Their addresses are, and localhost where the loopback is. So are names that exist inside one network only: where any
    network is open they are judged by what they lead to, and these lead nowhere. Other addresses stay closed, as does
    0.0.0.0, which is no loopback by any standard; and so does the port of a database, whatever the name before it.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    opened = [ip_network(network.strip()) for network in networks.split(",") if network.strip()]
    try:
        address = ip_address(parts.hostname)
    except ValueError:
        if parts.hostname.removesuffix(".").endswith("localhost"):
            opened = [network for network in opened if ip_address(LOCALHOST[network.version]) in network]
        return bool(opened) and parts.port != 5432
    return any(address.version == network.version and address in network for network in opened)


LOCALHOST = {4: "127.0.0.1", 6: "::1"}


def is_an_address(url: str) -> bool:
    try:
        return bool(ip_address(urlsplit(url).hostname or ""))
    except ValueError:
        return False


def leads_to_a_private_network(url: str) -> bool:
    """Whether the resolver of this machine knows the name of a case: an intranet in one office, nothing in another."""
    try:
        answers = socket.getaddrinfo(urlsplit(url).hostname, 80, type=socket.SOCK_STREAM)
    except OSError:
        return False
    addresses = [ip_address(answer[4][0]) for answer in answers]
    return not all(address.is_loopback or address.is_global for address in addresses)


@pytest.mark.parametrize("case", cases("ssrf_urls"))
def test_an_endpoint_is_refused_where_nobody_may_dial_it(case, api, request):
    # The stacks that the tests start open the loopback, as a local run does: the product document's own example
    # registers http://localhost:8080. What stands behind --api-url opens nothing, as the template does, or what
    # --open-cidrs says.
    networks = str(request.config.getoption("--open-cidrs")) if api.shared else LOOPBACK
    url = case["url"]
    allowed = case["verdict"] == "allow"
    if api.shared and allowed and is_an_address(url):
        pytest.skip("somebody has this address, and a sweep would dial it")
    opened = allowed or (case["class"] in TURNED and opened_by(networks, url))
    if api.shared and opened and not allowed and not is_an_address(url):
        pytest.skip("an internal name, which only the resolver of the stack can judge")
    answer = api("POST", REGISTER, api.registration(endpoint_url=url))
    if answer.status == 201:
        api("DELETE", f"{SERVERS}/{answer.json()['id']}")
    else:
        check_refusal(answer)
        if opened and not api.shared and leads_to_a_private_network(case["url"]):
            pytest.skip("this machine's resolver knows the name and leads it to a private network")
    assert answer.status == (201 if opened else 400), (case["url"], case["why"], answer.body)


def test_text_beyond_ascii_reads_back_as_it_was_sent(api):
    name = api.new_name()
    sent = api.registration(name, description="é😀")
    answer = api("POST", REGISTER, json.dumps(sent, ensure_ascii=False).encode())
    assert answer.status == 201
    check_created(api, sent, answer, [])
