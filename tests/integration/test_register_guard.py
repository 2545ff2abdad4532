"""The guard at registration: one look-up of the name, by a resolver that may answer anything, nothing, or never.

The resolver is the boundary of the system, so its answers are given here; everything behind it is real.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest

from mcp_registry.dial import guard, urls
from mcp_registry.dial.guard import CLOSED, OPEN, Policy
from tests.conftest import Api, InProcess, registration

REGISTER = "/api/registry/register"
DEFAULT = Policy.of({})


class Resolver:
    """What getaddrinfo answers for names of `example.com`; other names and addresses are looked up as ever."""

    def __init__(self, real: Callable[..., object]) -> None:
        self._real = real
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self.waiting = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self, host: object, *args: object, **options: object) -> object:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if not name.endswith("example.com"):
            return self._real(host, *args, **options)
        self.asked.append(name)
        if name.startswith("hanging"):
            self.waiting.release()
            assert self.release.wait(60)
        answers = self.answers.get(name, [])
        addresses = answers.pop(0) if answers else []
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setattr(guard, "_look_ups", [])
    monkeypatch.setattr(guard, "SECONDS", 30.0)  # a busy machine may take its second for nothing
    yield resolver
    resolver.release.set()
    for thread in guard._look_ups:
        thread.join(60)


@pytest.fixture
def closed_api(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> Api:
    """The API of a stack whose operator opens nothing, as in production."""
    monkeypatch.setenv(OPEN, "")
    monkeypatch.setenv(CLOSED, "")
    return Api(in_process.send, in_process=True)


def servers(api: Api) -> int:
    return api("GET", "/api/registry/servers?limit=1").json()["total"]


# ------------------------------------------------------------------ the look-up


@pytest.mark.parametrize("addresses", [["93.184.216.34"], ["2606:4700::1", "93.184.216.34"], ["93.184.216.34"] * 500])
def test_a_name_with_public_addresses_passes(resolver, addresses):
    resolver.answers["a.example.com"] = [addresses]
    assert guard.look_up_fault("http://a.example.com:8080/mcp", DEFAULT) is None
    assert resolver.asked == ["a.example.com"]


@pytest.mark.parametrize(
    ("addresses", "kind"),
    [
        (["10.0.0.5"], "a private address"),
        (["93.184.216.34", "10.0.0.5"], "a private address"),
        (["2606:4700::1", "127.0.0.1"], "the loopback"),
        (["::ffff:93.184.216.34"], "hidden in IPv6"),
        (["fe80::1%eth0"], "link-local"),
        (["169.254.169.254"] * 500, "link-local"),
    ],
)
def test_one_closed_address_closes_the_name_and_is_not_told(resolver, addresses, kind):
    resolver.answers["a.example.com"] = [addresses]
    fault = guard.look_up_fault("http://a.example.com/", DEFAULT)
    assert fault and fault.startswith("The name leads to ") and kind in fault
    assert not [address for address in addresses if address in fault]


def test_the_operators_networks_decide_about_the_answers_too(resolver):
    policy = Policy.of({OPEN: "10.0.0.0/8", CLOSED: "2600:1f18:abcd:1200::/56"})
    resolver.answers["a.example.com"] = [["10.0.0.5"], ["2600:1f18:abcd:1200::7"], ["10.0.0.5", "192.168.0.1"]]
    assert guard.look_up_fault("http://a.example.com/", policy) is None
    assert "has closed" in (guard.look_up_fault("http://a.example.com/", policy) or "")
    assert "a private address" in (guard.look_up_fault("http://a.example.com/", policy) or "")


def test_a_name_that_does_not_exist_yet_passes(resolver):
    assert guard.look_up_fault("http://not-yet.example.com/", DEFAULT) is None
    assert resolver.asked == ["not-yet.example.com"]


@pytest.mark.parametrize("host", ["93.184.216.34", "[2606:4700::1]", "localhost", "a.LOCALHOST."])
def test_what_is_known_is_not_looked_up(host, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", None)
    monkeypatch.setattr(guard, "_look_ups", [])
    assert guard.look_up_fault(f"http://{host}/", Policy.of({OPEN: "127.0.0.0/8"})) is None
    assert guard._look_ups == []


def test_the_resolver_of_this_machine_is_asked(monkeypatch):
    """Without a stand-in: what the machine answers to its own name, if it does, is judged."""
    monkeypatch.setattr(guard, "SECONDS", 30.0)
    name = socket.gethostname()
    if urls.endpoint_fault(f"http://{name}/"):
        pytest.skip("the name of this machine is none")
    try:
        addresses = {str(answer[4][0]) for answer in socket.getaddrinfo(name, 80)}
    except OSError:
        addresses = set()
    fault = guard.look_up_fault(f"http://{name}/", DEFAULT)
    assert (fault is not None) == any(DEFAULT.address_fault(address) for address in addresses)


def test_a_resolver_that_hangs_lets_the_name_pass_and_few_threads_wait_for_it(resolver, monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 0.01)
    resolver.answers["a.example.com"] = [["10.0.0.5"]]
    for number in range(3 * guard.MAX_LOOK_UPS):
        assert guard.look_up_fault(f"http://hanging-{number}.example.com/", DEFAULT) is None
    for _ in range(guard.MAX_LOOK_UPS):
        assert resolver.waiting.acquire(timeout=30)
    assert not resolver.waiting.acquire(blocking=False)
    assert len(resolver.asked) == guard.MAX_LOOK_UPS
    assert guard.look_up_fault("http://a.example.com/", DEFAULT) is None, "all threads wait: not in time"

    resolver.release.set()
    for thread in guard._look_ups:
        thread.join(30)
    monkeypatch.setattr(guard, "SECONDS", 30.0)
    assert "a private address" in (guard.look_up_fault("http://a.example.com/", DEFAULT) or "")


# ------------------------------------------------------------------ the handler


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://10.0.0.1/", "The host is a private address"),
        ("http://localhost:8080", "The host is the loopback"),
        ("http://wiki.corp/", "Such a name exists inside one network only"),
        ("http://example.com:22/", "Port 22 belongs to another protocol than MCP over HTTP"),
        ("http://private.example.com/", "The name leads to a private address"),
    ],
)
def test_a_closed_endpoint_is_refused_with_the_reason_and_leaves_no_row(method, url, sentence, closed_api, resolver):
    resolver.answers["private.example.com"] = [["93.184.216.34", "10.0.0.5"]]
    before = servers(closed_api)
    answer = closed_api(method, REGISTER, registration(closed_api.new_name(), endpoint_url=url))
    assert (answer.status, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    (fault,) = answer.json()["details"]
    assert (fault["path"], fault["type"]) == ("endpoint_url", "blocked")
    assert fault["message"].startswith(sentence)
    assert servers(closed_api) == before


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_registration_looks_its_name_up_exactly_once(method, closed_api, resolver):
    """A name that changes its meaning at once is judged by the one answer; each dial judges the next one."""
    resolver.answers["rebind.example.com"] = [["93.184.216.34"], ["127.0.0.1"]]
    sent = registration(closed_api.new_name(), endpoint_url="http://rebind.example.com/mcp", health_url="/health")
    answer = closed_api(method, REGISTER, sent)
    assert answer.status == 201, answer.body
    assert resolver.asked == ["rebind.example.com"]
    assert closed_api("DELETE", f"/api/registry/servers/{answer.json()['id']}").status == 204


def test_a_faulty_registration_is_not_looked_up_and_tells_every_fault(closed_api, resolver):
    sent = registration("not a name", endpoint_url="http://10.0.0.1/", health_url="http://evil.example.com/")
    answer = closed_api("POST", REGISTER, sent)
    assert {(fault["path"], fault["type"]) for fault in answer.json()["details"]} == {
        ("name", "value"),
        ("health_url", "value"),
        ("endpoint_url", "blocked"),
    }
    closed_api("POST", REGISTER, registration("not a name", endpoint_url="http://a.example.com/"))
    assert resolver.asked == []


def test_an_endpoint_that_is_no_url_has_that_one_fault(closed_api):
    answer = closed_api("POST", REGISTER, registration(closed_api.new_name(), endpoint_url="http://127.1:22/"))
    assert [(fault["path"], fault["type"]) for fault in answer.json()["details"]] == [("endpoint_url", "value")]


def test_the_handshake_of_put_looks_nothing_up(closed_api, resolver):
    digest = sha256(b"never registered").hexdigest()
    answer = closed_api("PUT", REGISTER, headers={"X-Registration-Digest": digest})
    assert answer.status == 428
    assert resolver.asked == []


def test_links_of_the_metadata_are_not_guarded(closed_api, resolver):
    links = {"repository_url": "http://git.corp:22/a/b", "documentation_url": "http://10.0.0.1/docs"}
    sent = registration(closed_api.new_name(), endpoint_url="http://ok.example.com/", metadata=links)
    answer = closed_api("POST", REGISTER, sent)
    assert answer.status == 201, answer.body
    assert resolver.asked == ["ok.example.com"]
    assert closed_api("DELETE", f"/api/registry/servers/{answer.json()['id']}").status == 204


def test_a_setting_that_is_not_right_is_our_defect_and_not_the_clients(closed_api, monkeypatch):
    monkeypatch.setenv(OPEN, "169.254.0.0/16")
    answer = closed_api("POST", REGISTER, registration(closed_api.new_name()))
    assert (answer.status, answer.json()["code"]) == (500, "INTERNAL_ERROR")
    assert "169.254" not in json.dumps(answer.json())
