"""Checks of real servers on the loopback: verdicts, redirects, names, TLS, and fairness when we are the slow ones."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import time_machine
import trustme

from mcp_registry.dial import exchange, lookup
from mcp_registry.dial.guard import Policy
from mcp_registry.dial.lookup import System
from mcp_registry.health import probe, pulse
from mcp_registry.health.probe import DEADLINE, Result, Target, check_all, moment, sweep
from mcp_registry.health.pulse import Pulse
from tests.conftest import ROOT
from tests.hostile import OK, Farm, Visit, closed_port, silent_port

SAMPLE = ROOT / "tests" / "corpus"
WHOLE = ROOT.parent / "shared" / "corpus"
CORPUS = WHOLE if (WHOLE / "ssrf_dns.json").is_file() else SAMPLE

OPEN = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8,::1/128"})
CLOSED = Policy.of({})
MARGIN_SECONDS = 1.5

RESULT = '{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2026-07-28"]}}'


def respond(status: str, body: str = "", kind: str = "application/json", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body.encode())}", *more]
    return ("\r\n".join(lines) + f"\r\n\r\n{body}").encode()


def service(
    routes: dict[tuple[str, str], bytes], other: bytes = respond("404 Not Found"), host: str = "127.0.0.1"
) -> Farm:
    """A server with a fixed answer to each method and path."""

    async def answer(visit: Visit) -> None:
        await visit.send(routes.get((visit.method, visit.path), other))

    return Farm(answer, host=host)


# What RESULT is to the pulse of an endpoint that has always answered so.
PULSE = pulse.write(Pulse("server/discover", pulse.signature(200, "application/json", RESULT.encode()), 5.0))


# What a health URL at the root is compared with.
NOWHERE = f"/{pulse.NONSENSE}"


def known(number: int, url: str) -> Target:
    """An endpoint that is up by its pulse."""
    return Target(number, number, url, None, PULSE, "modern", "healthy")


def gone(number: int, url: str) -> Target:
    """An endpoint that is down already: it is introduced at once, and once."""
    return Target(number, number, url, None, None, "legacy", "timeout")


def check(url: str, health_url: str | None = None, policy: Policy = OPEN) -> Result:
    """One check, of an endpoint that is up by its pulse, or by the health URL that it declares."""
    target = Target(1, 1, url, health_url, None, None, "refused") if health_url else known(1, url)
    (result,) = sweep([target], seconds=15, policy=policy)
    return result


def look(url: str, policy: Policy = OPEN) -> Result:
    """One check of an endpoint that is down already."""
    (result,) = sweep([gone(1, url)], seconds=15, policy=policy)
    return result


def judged(result: Result) -> tuple[str | None, int | None]:
    return result.verdict, result.status_code


def on_our_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=probe.new_event_loop) as runner:
        return runner.run(coroutine)


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Between two looks is no time: what these tests are about does not need it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "PAUSE_SECONDS", 0.05)
        yield


# ------------------------------------------------------------------ who is dialled


def test_a_port_where_nothing_listens_refuses():
    result = look(f"http://127.0.0.1:{closed_port()}/mcp")
    assert (*judged(result), result.error) == ("refused", None, "Nothing listens there: the connection was refused")


def test_a_closed_address_and_a_port_of_another_protocol_are_not_dialled():
    with service({}) as farm:
        result = check(farm.url, policy=CLOSED)
        assert farm.connections == 0
    assert result.verdict == "blocked"
    assert "loopback" in (result.error or "")
    assert judged(check("http://127.0.0.1:5432/")) == ("blocked", None)
    assert judged(check("http://127.0.0.1:8099/", "http://169.254.169.254/health")) == ("blocked", None)


@contextlib.contextmanager
def on_ipv6_only(manner: Callable[[Visit], Coroutine[Any, Any, None]]) -> Generator[Farm]:
    """A farm on ::1 to whose port nobody listens on 127.0.0.1, whatever else this machine does meanwhile."""
    while True:
        with Farm(manner, host="::1") as farm, socket.socket() as held:
            try:
                held.bind(("127.0.0.1", farm.port))
            except OSError:
                continue
            yield farm
            return


def test_a_server_on_ipv6_is_reached_by_its_address_and_by_localhost():
    async def answer(visit: Visit) -> None:
        await visit.send(respond("200 OK", RESULT))

    with on_ipv6_only(answer) as farm:
        assert judged(check(farm.url)) == ("healthy", 200)
        assert judged(check(f"http://localhost:{farm.port}")) == ("healthy", 200)
        assert [visit.headers["host"] for visit in farm.visits] == [f"[::1]:{farm.port}", f"localhost:{farm.port}"]


def test_localhost_means_the_addresses_that_are_open():
    with service({("POST", "/"): respond("200 OK", RESULT)}) as farm:
        policy = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8"})
        assert judged(check(f"http://localhost:{farm.port}", policy=policy)) == ("healthy", 200)


def test_every_result_has_the_time_and_the_moment_of_its_verdict():
    with service({}) as farm:
        before = time.monotonic()
        result = look(farm.url)
        after = time.monotonic()
    assert before <= result.ended <= after
    assert result.response_time_ms is not None
    assert 0 <= result.response_time_ms <= (after - before) * 1000 + 1


# ------------------------------------------------------------------ redirects


def redirect(location: str, status: str = "307 Temporary Redirect") -> bytes:
    return respond(status, "", "text/plain", f"Location: {location}")


@pytest.mark.parametrize("location", ["/mcp/", "http://127.0.0.1:{port}/mcp/", "mcp/", "/mcp/#part"])
@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
def test_one_redirect_within_the_origin_is_followed_with_method_and_body(location, status):
    async def answer(visit: Visit) -> None:
        good = visit.path == "/mcp/" and visit.body
        target = location.format(port=visit.headers["host"].rpartition(":")[2])
        await visit.send(respond("200 OK", RESULT) if good else redirect(target, status))

    with Farm(answer) as farm:
        assert judged(check(farm.url + "/mcp")) == ("healthy", 200)
        assert farm.paths() == [("POST", "/mcp"), ("POST", "/mcp/")]


def test_redirects_of_the_health_url_are_followed():
    routes = {("GET", "/up"): redirect("/up/"), ("GET", "/up/"): redirect("/up/now"), ("GET", "/up/now"): OK}
    with service(routes) as farm:
        assert judged(check(farm.url, "/up")) == ("healthy", 200)
        assert farm.paths()[:3] == [("GET", "/up"), ("GET", "/up/"), ("GET", "/up/now")]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:{canary}/mcp",
        "//127.0.0.1:{canary}/mcp",
        "https://127.0.0.1:{port}/mcp",
        "http://localhost:{port}/mcp",
        "http://user@127.0.0.1:{port}/mcp",
        "http://[::1",
        "ftp://127.0.0.1:{port}/mcp",
        "/mcp\x00",
        "/mcp\x7f",
        "/mcp/\xe4",
        "/m cp",
        "",
    ],
)
def test_a_redirect_that_leaves_the_origin_is_judged_as_its_status(location):
    with service({("POST", "/mcp"): respond("200 OK", RESULT)}) as canary:

        async def answer(visit: Visit) -> None:
            port = visit.headers["host"].rpartition(":")[2]
            await visit.send(redirect(location.format(port=port, canary=canary.port)))

        with Farm(answer) as farm:
            assert judged(look(farm.url)) == ("not_mcp", 307)
            assert {path for _, path in farm.paths()} == {"/"}
        assert canary.connections == 0


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other"])
def test_other_redirects_are_not_followed(status):
    routes = {("POST", "/"): redirect("/mcp", status), ("POST", "/mcp"): respond("200 OK", RESULT)}
    with service(routes) as farm:
        assert judged(look(farm.url)) == ("not_mcp", int(status[:3]))


# ------------------------------------------------------------------ names


class Told:
    """A resolver that says what it is told, and counts who asked."""

    def __init__(self, **answers: list[str]) -> None:
        self.asked: Counter[str] = Counter()
        self._answers = answers

    async def resolve(self, host: str) -> list[str]:
        self.asked[host] += 1
        answer = self._answers[host.partition(".")[0]]
        if answer[:1] == ["@hang"]:
            await asyncio.Event().wait()
        return answer


def test_servers_that_share_a_name_share_its_look_up():
    resolver = Told(shared=["127.0.0.1"])
    with service({("POST", "/"): respond("200 OK", RESULT)}) as farm:
        hosts = ("shared.example.com", "SHARED.example.com", "shared.example.com.")
        targets = [known(n, f"http://{hosts[n % 3]}:{farm.port}/") for n in range(60)]
        results = on_our_loop(check_all(targets, seconds=10, policy=OPEN, at_once=10, resolver=resolver))
        assert {judged(result) for result in results} == {("healthy", 200)}
        # The host is the one that was registered, in its spelling.
        assert {visit.headers["host"] for visit in farm.visits} == {f"{host}:{farm.port}" for host in hosts}
    assert resolver.asked == {"shared.example.com": 1}


def test_a_name_without_addresses_does_not_resolve():
    for answer in ([], ["127.0.0.1", "10.0.0.1"]):
        resolver = Told(odd=answer)
        (result,) = on_our_loop(
            check_all([gone(1, "http://odd.example.com/")], seconds=10, policy=OPEN, resolver=resolver)
        )
        assert result.verdict == ("blocked" if answer else "dns")
        assert (result.error == "The host name does not resolve") == (not answer)


def test_the_second_address_is_tried_where_the_first_refuses():
    async def answer(visit: Visit) -> None:
        await visit.send(respond("200 OK", RESULT))

    with on_ipv6_only(answer) as farm:
        for addresses in (["127.0.0.1", "::1"], ["127.0.0.2", "127.0.0.3", "::1"]):
            target = known(1, f"http://two.example.com:{farm.port}/")
            (result,) = on_our_loop(check_all([target], seconds=10, policy=OPEN, resolver=Told(two=addresses)))
            assert judged(result) == ("healthy", 200)


def test_the_second_address_is_tried_where_the_first_swallows_packets():
    async def answer(visit: Visit) -> None:
        await visit.send(respond("200 OK", RESULT))

    with Farm(answer) as farm, contextlib.ExitStack() as sockets:
        # Its queue is full: further connections are never made.
        full = sockets.enter_context(socket.create_server(("127.0.0.2", farm.port), backlog=0))
        for _ in range(8):
            client = sockets.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        target = known(1, f"http://two.example.com:{farm.port}/")
        told = Told(two=["127.0.0.2", "127.0.0.1"])
        (result,) = on_our_loop(check_all([target], seconds=10, policy=OPEN, resolver=told))
    assert judged(result) == ("healthy", 200)


def test_a_resolver_that_is_not_there_says_nothing_about_a_server():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = lookup.System(f"127.0.0.1:{closed.getsockname()[1]}")
        closed.close()
        target = gone(1, "http://some.example.com/")
        (result,) = on_our_loop(check_all([target], seconds=12, policy=OPEN, resolver=nowhere))
    assert (result.verdict, result.error) == (None, "The registry's own resolver cannot be reached")


def test_names_of_this_machine_are_found_without_asking_anybody(tmp_path, monkeypatch):
    hosts = tmp_path / "hosts"
    hosts.write_text("# ours\n127.0.0.1 localhost mine # yes\n\n::1\tOurs.Example.com.\n127.0.0.1 ours.example.com\n")
    monkeypatch.setattr(lookup, "HOSTS", hosts)
    with service({("POST", "/"): respond("200 OK", RESULT)}) as farm:
        for name in ("mine", "OURS.example.com"):
            result = check(f"http://{name}:{farm.port}/")
            assert judged(result) == ("healthy", 200), result


@contextlib.contextmanager
def name_server() -> Generator[str]:
    """A server of names on the loopback: 127.0.0.1 for every name with `live` in it, silence for every other."""

    def serve() -> None:
        while True:
            question, client = server.recvfrom(4_096)
            if question == b"end":
                return
            if b"live" not in question:
                continue
            end = question.index(b"\0", 12) + 5
            wants_ipv4 = question[end - 4 : end - 2] == b"\0\1"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if wants_ipv4 else b""
            counts = b"\0\1\0" + bytes((wants_ipv4,)) + b"\0\0\0\0"
            server.sendto(question[:2] + b"\x81\x80" + counts + question[12:end] + answer, client)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.sendto(b"end", server.getsockname())
        thread.join()


# ------------------------------------------------------------------ connections that fail


class Failing(asyncio.SelectorEventLoop):
    """A loop on which connections fail as they are told to, by family: no packet leaves."""

    def __init__(self, ipv4: int, ipv6: int | None = None) -> None:
        super().__init__()
        self.dialled: list[str] = []
        self._errors = {False: ipv4, True: ipv6}

    async def create_connection(self, *arguments: Any, **_: Any) -> Any:
        self.dialled.append(arguments[1])
        number = self._errors[":" in arguments[1]]
        assert number is not None
        raise OSError(number, os.strerror(number))


OWN = "The registry"
V4, V6 = "192.0.2.1", "2001:db8::1"


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "verdict", "sentence"),
    [
        (errno.ECONNREFUSED, None, "refused", "Nothing listens there"),
        (errno.EHOSTUNREACH, None, "refused", "The host cannot be reached"),
        (errno.ECONNRESET, None, "refused", "The connection was closed"),
        (errno.ETIMEDOUT, None, "timeout", "No answer within"),
        (errno.ENETUNREACH, None, None, OWN),
        (errno.EMFILE, None, None, OWN),
        (errno.ENFILE, None, None, OWN),
        (errno.ENOBUFS, None, None, OWN),
        (errno.ENOMEM, None, None, OWN),
        (errno.EADDRNOTAVAIL, None, None, OWN),
        (errno.EPERM, None, None, OWN),
        (errno.EACCES, None, None, OWN),
        # The second family decides only where it says something about the server.
        (errno.ECONNREFUSED, errno.ECONNREFUSED, "refused", "Nothing listens there"),
        (errno.ECONNREFUSED, errno.ENETUNREACH, "refused", "Nothing listens there"),
        (errno.ECONNREFUSED, errno.EADDRNOTAVAIL, "refused", "Nothing listens there"),
        (errno.ENETUNREACH, errno.ECONNREFUSED, "refused", "Nothing listens there"),
        (errno.ENETUNREACH, errno.EADDRNOTAVAIL, None, OWN),
        (errno.ECONNREFUSED, errno.EMFILE, None, OWN),
    ],
)
def test_what_is_lacking_here_is_never_said_of_the_server(ipv4, ipv6, verdict, sentence):
    policy = Policy.of({"GUARD_OPEN_CIDRS": f"{V4}/32,{V6}/128"})
    resolver = Told(any=[V4] if ipv6 is None else [V6, V4])
    with asyncio.Runner(loop_factory=lambda: Failing(ipv4, ipv6)) as runner:
        loop = runner.get_loop()
        target = gone(1, "http://any.example.com/")
        (result,) = runner.run(check_all([target], seconds=10, policy=policy, resolver=resolver))
        assert isinstance(loop, Failing)
        # IPv4 first, and all of it once more where it was a lack of ours.
        once = [V4] if ipv6 is None else [V4, V6]
        assert loop.dialled == once * (1 if verdict else 2)
    assert result.verdict == verdict
    assert (result.error or "").startswith(sentence)


def test_the_second_look_goes_to_all_addresses_again():
    """The last one is of a family that this machine does not have: by itself it would be no fault of the server's."""
    policy = Policy.of({"GUARD_OPEN_CIDRS": f"{V4}/32,{V6}/128"})
    with asyncio.Runner(loop_factory=lambda: Failing(errno.ECONNREFUSED, errno.ENETUNREACH)) as runner:
        target = known(1, "http://any.example.com/")
        (result,) = runner.run(check_all([target], seconds=10, policy=policy, resolver=Told(any=[V6, V4])))
        loop = runner.get_loop()
        assert isinstance(loop, Failing) and loop.dialled == [V4, V6] * 3
    assert result.verdict == "refused"


def test_a_fault_of_ours_is_no_verdict_and_is_logged_without_its_message(monkeypatch):
    class Broken:
        async def resolve(self, host: str) -> list[str]:
            raise RuntimeError("a fault of ours")

    told: list[BaseException] = []
    monkeypatch.setattr(probe.observability, "log_defect", lambda _, error: told.append(error))
    target = gone(1, "http://any.example.com/")
    (result,) = on_our_loop(check_all([target], seconds=10, policy=OPEN, resolver=Broken()))
    assert (result.verdict, result.error) == (None, "The check failed inside the registry")
    assert {str(error) for error in told} == {"a fault of ours"}


def test_a_url_that_would_write_headers_is_not_asked():
    with service({}) as farm:
        assert judged(check(farm.url, "/up HTTP/1.1\r\nX-Mine: 1\r\n\r\n")) == ("blocked", None)
        assert farm.connections == 0


def test_a_sweep_that_is_cancelled_leaves_nothing_under_way():
    async def main(url: str) -> None:
        targets = [known(number, url) for number in range(50)]
        targets.append(known(50, "http://hang.example.com/"))
        checking = asyncio.create_task(check_all(targets, seconds=20, policy=OPEN, resolver=Told(hang=["@hang"])))
        while farm.connections < 50:
            await asyncio.sleep(0)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def holds(visit: Visit) -> None:
        await visit.hold()

    with Farm(holds) as farm:
        on_our_loop(main(farm.url))


# ------------------------------------------------------------------ TLS


class Authority:
    """A certificate authority that checks trust, one that they do not, and the servers that these certify."""

    def __init__(self, folder: Path) -> None:
        self.bundle = str(folder / "ca.pem")
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(self.bundle)
        self._stranger = trustme.CA()
        yesterday = datetime.now(UTC) - timedelta(days=1)
        self.contexts = {
            "good": self._server(self._ca.issue_cert("localhost", "127.0.0.1")),
            "expired": self._server(self._ca.issue_cert("localhost", not_after=yesterday)),
            "another name": self._server(self._ca.issue_cert("elsewhere.example.com")),
            "unknown issuer": self._server(self._stranger.issue_cert("localhost")),
            "self-signed": self._self_signed(folder),
            "wants a certificate": self._server(self._ca.issue_cert("localhost")),
        }
        self.contexts["wants a certificate"].verify_mode = ssl.CERT_REQUIRED

    def _server(self, certificate: trustme.LeafCert) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context

    def _self_signed(self, folder: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._stranger.private_key_pem.write_to_path(str(folder / "self.pem"))
        self._stranger.cert_pem.write_to_path(str(folder / "self.pem"), append=True)
        context.load_cert_chain(folder / "self.pem")
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusting(authority, monkeypatch) -> Authority:
    """The machine's bundle of authorities is ours."""
    monkeypatch.setenv("SSL_CERT_FILE", authority.bundle)
    monkeypatch.setattr(exchange, "_context", None)
    return authority


async def discover(visit: Visit) -> None:
    await visit.send(respond("200 OK", RESULT))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("expired", "The certificate has expired"),
        ("another name", "The certificate is for another host name"),
        ("unknown issuer", "The certificate's issuer is not known"),
        ("self-signed", "The certificate is self-signed"),
    ],
)
def test_a_certificate_that_proves_nothing_is_said_by_its_kind(kind, sentence, trusting):
    with Farm(discover, tls=trusting.contexts[kind]) as farm:
        result = look(f"https://localhost:{farm.port}/")
        assert farm.visits == []
    assert (*judged(result), result.error) == ("tls", None, sentence)


def test_a_server_that_wants_a_certificate_of_its_clients_says_so(trusting):
    def refuse() -> None:
        # By OpenSSL's own socket: asyncio closes such a connection without the alert.
        client, _ = listener.accept()
        with client, contextlib.suppress(ssl.SSLError):
            trusting.contexts["wants a certificate"].wrap_socket(client, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse)
        thread.start()
        result = look(f"https://localhost:{listener.getsockname()[1]}/")
        thread.join()
    assert (*judged(result), result.error) == ("tls", None, "The server asks for a certificate of its clients")


def test_a_server_with_a_good_certificate_is_healthy_by_name_and_by_address(trusting):
    with Farm(discover, tls=trusting.contexts["good"]) as farm:
        for url in (f"https://localhost:{farm.port}/", f"https://LOCALHOST.:{farm.port}", f"{farm.url}/mcp"):
            assert judged(check(url)) == ("healthy", 200)


def test_a_name_is_proved_by_its_certificate_whatever_its_address(trusting):
    with Farm(discover, tls=trusting.contexts["good"]) as farm:
        target = gone(1, f"https://other.example.com:{farm.port}/")
        (result,) = on_our_loop(check_all([target], seconds=10, policy=OPEN, resolver=Told(other=["127.0.0.1"])))
        assert result.error == "The certificate is for another host name"


def test_https_where_plain_http_is_spoken_is_not_tls():
    with service({}) as farm:
        result = look(f"https://127.0.0.1:{farm.port}/")
    assert (*judged(result), result.error) == ("tls", None, "What answers there is not TLS")


# ------------------------------------------------------------------ slow scenarios, all at the same time


@pytest.fixture(scope="module", autouse=True)
def slow(short: None) -> Iterator[dict[str, Future[Any]]]:
    """What takes a deadline to play out, side by side in threads: each test waits for the one that it asserts."""
    scenarios: Sequence[Callable[[], Any]] = (frozen, dns_corpus, hanging_and_healthy, out_of_time, dead_names, blocked)
    with ThreadPoolExecutor(len(scenarios)) as threads:
        yield {scenario.__name__: threads.submit(scenario) for scenario in scenarios}


class NoPacketLeaves(asyncio.SelectorEventLoop):
    """A loop on which every connection is refused, and remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[tuple[str, int]] = []

    async def create_connection(self, *arguments: Any, **_: Any) -> Any:
        _, host, port = arguments
        self.dialled.append((host, port))
        raise ConnectionRefusedError(111, "not on this loop")


class Scripted:
    """A resolver that plays a case of the corpus: its n-th answer to the n-th question."""

    def __init__(self, answers: list[list[str]]) -> None:
        self.look_ups = 0
        self._answers = answers

    async def resolve(self, host: str) -> list[str]:
        answer = self._answers[min(self.look_ups, len(self._answers) - 1)]
        self.look_ups += 1
        if answer and answer[0].startswith("@sleep"):
            await asyncio.sleep(float(answer[0].split()[1]))
            return []
        return answer


def dns_cases() -> list[dict[str, Any]]:
    return json.loads((CORPUS / "ssrf_dns.json").read_text()) if (CORPUS / "ssrf_dns.json").is_file() else []


def dns_corpus() -> dict[str, tuple[Result, list[str], int]]:
    """Each case on a loop of its own: its result, what was dialled, how often was looked up."""

    def play(case: dict[str, Any]) -> tuple[Result, list[str], int]:
        resolver = Scripted(case["answers"])
        policy = Policy.of({"GUARD_CLOSED_CIDRS": ",".join(case.get("extra_deny", []))})
        with asyncio.Runner(loop_factory=NoPacketLeaves) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, NoPacketLeaves)
            targets = [gone(1, case["url"])]
            (result,) = runner.run(check_all(targets, seconds=10, policy=policy, resolver=resolver))
            return result, [address for address, _ in loop.dialled], resolver.look_ups

    cases = dns_cases()
    with ThreadPoolExecutor(4) as threads:
        return dict(zip((case["id"] for case in cases), threads.map(play, cases), strict=True))


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in dns_cases()])
def test_a_name_is_looked_up_once_and_only_what_was_checked_is_dialled(case, slow):
    result, dialled, look_ups = slow["dns_corpus"].result()[case["id"]]
    assert set(dialled) <= set(case["may_dial"]), case["why"]
    assert len(dialled) <= case.get("max_dials", 2)
    assert look_ups <= case.get("max_lookups", 1)
    assert bool(dialled) == (case["verdict"] == "allow"), (case["why"], result)
    if case["verdict"] == "allow":
        assert result.verdict == "refused"
    elif case["answers"][0][:1] == ["@sleep 30"]:
        # Not judged where this machine was busy with other things for too much of the five seconds.
        assert result.verdict == "dns" or result.error == "The registry was too busy to check fairly"
    else:
        assert result.verdict == ("blocked" if case["answers"][0] else "dns"), case["why"]


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_clock_that_jumps_while_a_server_answers_changes_neither_verdict_nor_time(hours):
    """The wall clock is set by somebody else; how long an answer takes is told by one that only goes forward."""
    with time_machine.travel(datetime.now(UTC), tick=True) as clock:

        async def answer(visit: Visit) -> None:
            clock.shift(timedelta(hours=hours))
            await visit.send(respond("200 OK", RESULT))

        before = datetime.now(UTC)
        with Farm(answer) as farm:
            result = check(farm.url)
        assert abs(datetime.now(UTC) - before) > timedelta(hours=23)  # it has jumped
    assert judged(result) == ("healthy", 200)
    assert result.response_time_ms is not None and 0 <= result.response_time_ms < DEADLINE * 1000


def hanging_and_healthy() -> tuple[list[Result], float]:
    """300 servers that say nothing among 300 that answer, with room for 350 checks at once."""
    with silent_port() as silent, service({("POST", "/"): respond("200 OK", RESULT)}) as farm:
        urls = [f"http://127.0.0.1:{silent}/", farm.url]
        targets = [(known if number % 2 else gone)(number, urls[number % 2]) for number in range(600)]
        started = time.monotonic()
        return sweep(targets, seconds=9, policy=OPEN, at_once=350, introductions=300), started


def test_servers_that_hang_do_not_delay_those_that_do_not(slow):
    results, started = slow["hanging_and_healthy"].result()
    verdicts = Counter((result.server_id % 2, result.verdict) for result in results)
    # On a machine that is busy with other things some of those that hang may be left unjudged; no other ever.
    assert verdicts[1, "healthy"] == 300
    assert verdicts[0, "timeout"] + verdicts[0, None] == 300
    hanging = [result for result in results if result.verdict == "timeout"]
    asked = re.compile(r"No answer to initialize within [3-6](\.[0-9])? seconds")
    assert all(asked.fullmatch(result.error or "") for result in hanging), {result.error for result in hanging}
    assert all((result.response_time_ms or 0) >= DEADLINE * 1000 - 100 for result in hanging)
    assert max(result.ended for result in results if result.server_id % 2) - started < DEADLINE


def dead_names() -> list[Result]:
    """A hundred names that nobody answers for, and as many that somebody does, over c-ares."""

    async def main(names: str) -> list[Result]:
        resolver = System(names)
        try:
            return await check_all(targets, seconds=15, policy=OPEN, resolver=resolver)
        finally:
            await resolver.close()

    with name_server() as names, service({("POST", "/"): respond("200 OK", RESULT)}) as farm:
        hosts = [f"{kind}{number}" for number in range(100) for kind in ("dead", "live")]
        targets = [
            (gone if host.startswith("dead") else known)(n, f"http://{host}.example.com:{farm.port}/")
            for n, host in enumerate(hosts)
        ]
        return on_our_loop(main(names))


def test_a_name_that_nobody_answers_for_harms_no_other(slow):
    results = slow["dead_names"].result()
    verdicts = Counter(result.verdict for result in results)
    assert verdicts["healthy"] == 100
    assert verdicts["dns"] + verdicts[None] == 100
    # Which of the two is said hangs on when c-ares gives up, and that on chance.
    assert {result.error for result in results if result.verdict == "dns"} <= {
        "The host name did not resolve within 5 seconds",
        "The host name does not resolve",
    }
    healthy = [result for result in results if result.verdict == "healthy"]
    assert all((result.response_time_ms or 0) < DEADLINE * 1000 for result in healthy)


def out_of_time() -> list[Result]:
    """Ten servers that hang, one at a time, in a sweep with time for one."""
    with silent_port() as silent:
        targets = [gone(number, f"http://127.0.0.1:{silent}/") for number in range(10)]
        return sweep(targets, seconds=DEADLINE + 0.5, policy=OPEN, at_once=1)


def test_what_could_not_be_started_in_time_is_not_checked(slow):
    results = slow["out_of_time"].result()
    unchecked = [result for result in results if result.server_id > 0]
    assert len(results) == 10
    for result in unchecked:
        assert (result.verdict, result.status_code, result.response_time_ms) == (None, None, None)
        assert result.error == "The sweep ran out of time before this server's turn"


FROZEN = """
import json, sys
from mcp_registry.dial.guard import Policy
from mcp_registry.health.probe import sweep
from tests.integration.test_probe import known

ports = json.load(sys.stdin)
targets = [known(n, f"http://127.0.0.1:{ports[n % len(ports)]}/") for n in range(200)]
results = sweep(targets, seconds=20, policy=Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8"}))
print(json.dumps(results))
"""


def prober(script: str, *, given: Any) -> subprocess.Popen[str]:
    """A process of its own that runs a script; what it is given stands on its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "layers" / "registry"), str(ROOT)])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(given))
    process.stdin.close()
    process.stdin = None
    return process


def frozen() -> list[list[Any]]:
    """A prober that is stopped in the middle of its first checks, for longer than a deadline.

    One kind of healthy servers is about to answer when it is stopped, the other gives up on its clients meanwhile.
    """
    enough = threading.Event()

    async def patient(visit: Visit) -> None:
        if len(one.visits) + len(two.visits) >= 60:
            enough.set()
        await one.gate("thawed").wait()
        await visit.send(respond("200 OK", RESULT))

    async def impatient(visit: Visit) -> None:
        if two.gate("stopped").is_set():
            await visit.send(respond("200 OK", RESULT))
        else:
            await two.gate("stopped").wait()
            visit.reset()

    with Farm(patient) as one, Farm(impatient) as two:
        process = prober(FROZEN, given=[one.port, two.port])
        assert enough.wait(30)
        os.kill(process.pid, signal.SIGSTOP)
        two.open("stopped")
        time.sleep(DEADLINE + 0.5)  # the freeze itself, not a wait for something
        one.open("thawed")
        os.kill(process.pid, signal.SIGCONT)
        output, _ = process.communicate(timeout=60)
    return json.loads(output)


def test_a_prober_that_was_frozen_calls_no_server_down(slow):
    verdicts = Counter(result[2] for result in slow["frozen"].result())
    assert verdicts.total() == 200
    assert set(verdicts) <= {"healthy", None}, verdicts
    assert verdicts["healthy"] > 100


# ------------------------------------------------------------------ fairness


def blocked() -> tuple[list[Result], int]:
    """Twenty servers that close without a word and one that is healthy, on a loop that never gets to them in time."""

    async def closes(visit: Visit) -> None:
        await asyncio.sleep(0.4)  # its manner

    async def main() -> list[Result]:
        targets = [gone(number, f"{farm.url}/{number}") for number in range(20)]
        targets.append(known(20, good.url))
        checking = asyncio.create_task(check_all(targets, seconds=15, policy=OPEN))
        while not checking.done():
            await asyncio.sleep(0)
            time.sleep(0.3)  # the fault: nothing else runs
        return await checking

    with Farm(closes) as farm, service({("POST", "/"): respond("200 OK", RESULT)}) as good:
        return on_our_loop(main()), farm.connections


def test_a_failure_while_our_loop_was_blocked_is_no_verdict(slow):
    found, connections = slow["blocked"].result()
    results = {result.server_id: result for result in found}
    assert judged(results.pop(20)) == ("healthy", 200)
    assert {result.verdict for result in results.values()} == {None}
    assert {result.error for result in results.values()} == {"The registry was too busy to check fairly"}
    assert connections == 80  # each was introduced once more, and in two ways each time


def test_a_check_that_was_unfair_is_repeated_and_the_second_counts():
    async def closes(visit: Visit) -> None:
        if visit.path != "/":
            await asyncio.sleep(0.4)

    async def main() -> list[Result]:
        targets = [gone(number, f"{farm.url}/{number}") for number in range(20)]
        checking = asyncio.create_task(check_all(targets, seconds=15, policy=OPEN))
        while len(farm.visits) < 20:
            await asyncio.sleep(0)
        time.sleep(0.5)  # the fault, once
        return await checking

    with Farm(closes) as farm:
        results = on_our_loop(main())
        assert farm.connections == 80
    assert {judged(result) for result in results} == {("refused", None)}
    assert {result.error for result in results} == {"The connection was closed before an answer came"}


def test_a_name_that_was_not_found_while_our_loop_was_blocked_is_asked_for_again():
    class Late:
        asked = 0

        async def resolve(self, host: str) -> list[str]:
            self.asked += 1
            if self.asked > 1:
                return ["127.0.0.1"]
            await asyncio.sleep(0)
            time.sleep(0.5)  # the fault, once
            return []

    with service({("POST", "/"): respond("200 OK", RESULT)}) as farm:
        resolver = Late()
        targets = [known(number, f"http://shared.example.com:{farm.port}/") for number in range(20)]
        results = on_our_loop(check_all(targets, seconds=15, policy=OPEN, resolver=resolver))
    assert {judged(result) for result in results} == {("healthy", 200)}
    assert resolver.asked == 2


FEW = """
import json, resource, sys
from mcp_registry.dial.guard import Policy
from mcp_registry.health.probe import sweep
from tests.integration.test_probe import known

port = json.load(sys.stdin)
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 120))
targets = [known(n, f"http://127.0.0.1:{port}/") for n in range(300)]
results = sweep(targets, seconds=20, policy=Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8"}))
print(json.dumps([results, resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""

NONE_LEFT = """
import asyncio, contextlib, json, resource, sys
from mcp_registry.dial.guard import Policy
from mcp_registry.health.probe import check_all, new_event_loop
from tests.integration.test_probe import known

port = json.load(sys.stdin)
taken = []

class Greedy:
    async def resolve(self, host):
        with contextlib.suppress(OSError):
            while True:
                taken.append(open("/dev/null"))
        return ["127.0.0.1"]

resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
names = [known(n, f"http://greedy.example.com:{port}/") for n in range(20)]
policy = Policy.of({"GUARD_OPEN_CIDRS": "127.0.0.0/8"})
with asyncio.Runner(loop_factory=new_event_loop) as runner:
    results = runner.run(check_all(names, seconds=10, policy=policy, resolver=Greedy()))
    for file in taken:
        file.close()
print(json.dumps(results))
"""


def test_no_more_is_under_way_than_there_are_descriptors():
    with service({("POST", "/"): respond("200 OK", RESULT)}) as farm:
        output, _ = prober(FEW, given=farm.port).communicate(timeout=60)
    results, limit = json.loads(output)
    assert {(result[2], result[3]) for result in results} == {("healthy", 200)}
    assert limit == [120, 120]


def test_where_we_have_no_descriptors_left_nobody_is_down():
    with service({("POST", "/"): respond("200 OK", RESULT)}) as farm:
        output, _ = prober(NONE_LEFT, given=farm.port).communicate(timeout=60)
    results = json.loads(output)
    assert {(result[2], result[5]) for result in results} == {
        (None, "The registry had no free sockets or memory to check with")
    }


# ------------------------------------------------------------------ one host's share


class Crowd:
    """A host that answers wherever it is asked, and knows how many asked it at the same time.

    A path that cannot exist is none of its own.
    """

    def __init__(self) -> None:
        self.now = self.most = 0
        self.paths: list[str] = []

    async def __call__(self, visit: Visit) -> None:
        if visit.path == NOWHERE:
            await visit.send(respond("404 Not Found"))
            return
        self.now += 1
        self.most = max(self.most, self.now)
        self.paths.append(visit.path)
        await asyncio.sleep(0.01)  # so that those that come together are there together
        self.now -= 1
        await visit.send(respond("204 No Content"))


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_one_host_has_so_many_checks_in_a_sweep_and_the_rest_is_not_checked_and_says_so(spread):
    crowd = Crowd()
    with Farm(crowd) as farm:
        targets = [Target(number, number, farm.url, f"/{number}") for number in range(60)]
        results = sweep(targets, seconds=15, spread=spread, policy=OPEN, per_host=20)
    assert Counter(result.verdict for result in results) == {"healthy": 20, None: 40}
    assert {result.error for result in results if result.verdict is None} == {probe.CROWDED}
    assert (len(crowd.paths), crowd.most <= 8) == (20, True)


def test_a_host_is_an_address_whatever_names_and_ports_lead_to_it():
    """Ten names of a wildcard, each at two ports: the crowd is known by where it is dialled."""

    class Wildcard:
        async def resolve(self, host: str) -> list[str]:
            return ["127.0.0.1", "127.0.0.9"] if host.startswith("many") else ["127.0.0.1"]

    crowd = Crowd()
    with Farm(crowd) as farm, Farm(crowd) as other:
        hosts = [f"one{number}.example.com" for number in range(10)] + [
            f"many{number}.example.com" for number in range(10)
        ]
        urls = [f"http://{host}:{port}" for host in hosts for port in (farm.port, other.port)]
        targets = [Target(number, number, url, f"/{number}") for number, url in enumerate(urls)]
        results = on_our_loop(check_all(targets, seconds=15, policy=OPEN, per_host=15, resolver=Wildcard()))
    assert Counter(result.verdict for result in results) == {"healthy": 15, None: 25}
    assert len(crowd.paths) == 15


def test_a_crowd_of_one_host_costs_no_other_its_turn():
    crowd, other = Crowd(), Crowd()
    with Farm(crowd) as farm, Farm(other, host="127.0.0.2") as quiet:
        targets = [Target(number, number, (farm if number % 3 else quiet).url, f"/{number}") for number in range(30)]
        results = sweep(targets, seconds=15, policy=OPEN, per_host=10)
    assert {result.server_id: result.verdict for result in results if result.server_id % 3 == 0} == dict.fromkeys(
        range(0, 30, 3), "healthy"
    )
    assert (len(crowd.paths), len(other.paths)) == (10, 10)


def test_a_host_that_is_asked_by_way_of_others_has_its_share_and_no_more():
    crowd = Crowd()
    with Farm(crowd, host="127.0.0.2") as other, contextlib.ExitStack() as owners:
        owned = [owners.enter_context(service({}, host=f"127.0.1.{n}")) for n in range(1, 7)]
        targets = [
            Target(n, n, f"{other.url}/{n}", f"{own.url}/up", None, "legacy", "refused") for n, own in enumerate(owned)
        ]
        results = sweep(targets, seconds=15, policy=OPEN, per_host=3)
        assert all(own.paths() for own in owned)
    assert Counter(result.error == probe.CROWDED for result in results) == {False: 3, True: 3}
    assert len({*crowd.paths}) == 3


@pytest.mark.parametrize("others", [4, 10])
def test_a_place_is_not_lost_on_one_whose_other_address_has_none(others):
    """Of 10 checks, 4 at once: the other address is busy until all of the first have ended, or has had its 10."""

    class Names:
        async def resolve(self, host: str) -> list[str]:
            both = ["127.0.0.1", "127.0.0.9"]
            return {"early": both[:1], "other": both[1:], "both": both, "late": both[:1]}[host.split(".")[0]]

    waiting, counted = ("/other", ("/early", "/late")) if others == 4 else ("/early", ("/other",))
    ten, ended = asyncio.Event(), 0

    async def answer(visit: Visit) -> None:
        nonlocal ended
        if visit.path == NOWHERE:
            await visit.send(respond("404 Not Found"))
            return
        if visit.path == waiting:
            await ten.wait()
        await asyncio.sleep(0.05)  # so that those who come later wait
        await visit.send(respond("204 No Content"))
        ended += visit.path in counted
        if ended == 10:
            ten.set()

    names = ["early"] * 4 + ["other"] * others + ["both"] * 6 + ["late"] * 6
    with Farm(answer, host="0.0.0.0") as farm:
        targets = [
            Target(number, number, f"http://{name}.example.com:{farm.port}", f"/{name}")
            for number, name in enumerate(names)
        ]
        results = on_our_loop(check_all(targets, seconds=15, policy=OPEN, per_host=10, resolver=Names()))
    healthy = Counter(names[result.server_id] for result in results if result.verdict == "healthy")
    assert healthy == {"early": 4, "other": others, "late": 6}
    assert {result.error for result in results if result.verdict != "healthy"} == {probe.CROWDED}


def test_those_that_were_left_out_before_come_first_and_as_evenly_as_ever():
    crowd = Crowd()
    with Farm(crowd) as farm:
        targets = [Target(number, number, farm.url, f"/{number}") for number in range(30)]
        results = sweep(targets, seconds=15, spread=0.2, policy=OPEN, per_host=10, first=10)
    assert {result.server_id for result in results if result.verdict} == set(range(10))
    turns = probe._turns(targets, 3.0, 10)
    assert [target.server_id for _, target in turns[:10]] == list(range(10))
    gaps = [after - before for (before, _), (after, _) in pairwise(turns)]
    assert min(gaps) >= 0 and max(gaps) < 0.3


# ------------------------------------------------------------------ a sweep


def test_each_server_has_its_moment_in_the_spread():
    with service({("POST", f"/{n}"): respond("200 OK", RESULT) for n in range(40)}) as farm:
        targets = [known(number, f"{farm.url}/{number}") for number in range(40)]
        started = time.monotonic()
        results = sweep(targets, seconds=15, spread=1.0, policy=OPEN)
        order = [int(path[1:]) for _, path in farm.paths()]
    assert {result.verdict for result in results} == {"healthy"}
    assert all(result.ended - started >= moment(result.server_id) for result in results)
    # Neighbours may overtake one another on their way; the whole may not.
    assert sum(abs(place - order.index(n)) for place, n in enumerate(sorted(range(40), key=moment))) < 40


def test_moments_are_even_and_stay_the_same():
    for first in (0, 1, 10**6, 2**62):
        moments = sorted(moment(number) for number in range(first, first + 1_000))
        assert moments[0] >= 0 and moments[-1] < 1
        assert max(after - before for before, after in pairwise(moments)) < 0.003
    assert moment(1) == pytest.approx(0.6180339887)


def test_a_spread_beyond_the_time_leaves_the_late_ones_out():
    with service({("POST", "/"): respond("200 OK", RESULT)}) as farm:
        targets = [known(number, farm.url) for number in range(100)]
        results = sweep(targets, seconds=DEADLINE + 0.4, spread=2.0, policy=OPEN)
    verdicts = Counter(result.verdict for result in results)
    assert verdicts.total() == 100
    assert set(verdicts) == {"healthy", None}
    assert verdicts[None] >= 75


def test_a_sweep_without_time_or_without_servers_dials_nobody():
    with service({}) as farm:
        results = sweep([known(1, farm.url)], seconds=DEADLINE - 0.1, policy=OPEN)
        assert farm.connections == 0
    assert [result.verdict for result in results] == [None]
    assert sweep([], seconds=10, policy=OPEN) == []


def descriptors() -> list[str]:
    return [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_two_thousand_checks_leave_nothing_behind(trusting):
    """No descriptor, no task, no word from the loop about what was forgotten."""
    complaints: list[str] = []

    async def answer(visit: Visit) -> None:
        match visit.mode:
            case "good":
                await visit.send(respond("200 OK", RESULT))
            case "reset":
                visit.reset()
            case _:
                await visit.send(b"SSH-2.0\r\n")

    async def main(targets: list[Target]) -> list[Result]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
        resolver = System(names)
        results = await check_all(targets, seconds=30, policy=OPEN, at_once=200, resolver=resolver)
        await resolver.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return results

    with name_server() as names, Farm(answer) as farm, Farm(answer, tls=trusting.contexts["good"]) as secure:
        refusing = closed_port()
        urls = [
            *(f"{farm.url}/{mode}" for mode in ("good", "reset", "banner", "good", "good", "good", "good")),
            f"http://127.0.0.1:{refusing}/",
            f"https://127.0.0.1:{farm.port}/",
            f"http://live{farm.port}.example.com:{farm.port}/good",
        ]
        targets = [known(number, urls[number % len(urls)]) for number in range(1_950)]
        targets += [known(2_000 + number, f"https://localhost:{secure.port}/good") for number in range(50)]
        on_our_loop(main(targets[-60:]))
        before = len(descriptors())
        results = on_our_loop(main(targets))
        # Where the machine is too busy to judge a server, that is said, and the server is asked again.
        while unjudged := {result.server_id for result in results if result.verdict is None}:
            again = on_our_loop(main([target for target in targets if target.server_id in unjudged]))
            results = [result for result in results if result.server_id not in unjudged] + again
    verdicts = Counter((result.server_id % len(urls), result.verdict) for result in results if result.server_id < 2_000)
    expected = ["healthy", "refused", "not_mcp", *["healthy"] * 4, "refused", "tls", "healthy"]
    assert verdicts == dict.fromkeys(enumerate(expected), 195)
    assert {result.verdict for result in results if result.server_id >= 2_000} == {"healthy"}
    assert complaints == []
    gc.collect()
    # The farms have closed what was theirs; c-ares ends its channel on a thread of its own.
    deadline = time.monotonic() + 10
    while len(descriptors()) > before:
        assert time.monotonic() < deadline, descriptors()
