"""The guard: which addresses may be registered and dialled."""

from __future__ import annotations

import json
import socket
import threading
import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_registry.aws import db
from mcp_registry.dial import guard, urls
from mcp_registry.dial.guard import CLOSED, NETWORKS, NEVER, OPEN, Policy
from tests.conftest import ROOT
from tests.fuzz.guard import METADATA, oracle

SAMPLE = ROOT / "tests" / "corpus"
WHOLE = ROOT.parent / "shared" / "corpus"
CORPUS = WHOLE if WHOLE.is_dir() else SAMPLE

DEFAULT = Policy.of({})
LOOPBACK = Policy.of({OPEN: "127.0.0.0/8,::1/128"})
EVERYTHING = Policy.of({OPEN: "0.0.0.0/0,::/0"})


def load(name: str) -> list[Any]:
    return [pytest.param(case, id=case["id"]) for case in json.loads((CORPUS / f"{name}.json").read_text())]


def fault_of(url: str, policy: Policy = DEFAULT) -> str | None:
    return urls.endpoint_fault(url) or policy.url_fault(url)


def url_of(address: str) -> str:
    return f"http://[{address}]/" if ":" in address else f"http://{address}/"


# ------------------------------------------------------------------ the corpus


@pytest.mark.parametrize("case", load("ssrf_urls"))
def test_every_url_of_the_corpus_is_judged_as_expected(case):
    fault = fault_of(case["url"])
    assert (fault is None) == (case["verdict"] == "allow"), (case["why"], fault)


@pytest.mark.parametrize("case", load("ssrf_urls"))
def test_open_loopback_opens_what_the_corpus_says(case):
    if "dev" in case:
        assert fault_of(case["url"], LOOPBACK) is None
    elif case["class"] not in {"loopback", "private", "names"}:
        assert (fault_of(case["url"], LOOPBACK) is None) == (case["verdict"] == "allow"), case["why"]


@pytest.mark.parametrize("case", load("ssrf_dns"))
def test_every_answer_of_the_corpus_is_judged_as_expected(case):
    policy = Policy.of({CLOSED: ",".join(case.get("extra_deny", ()))})
    assert fault_of(case["url"]) is None
    faults = [policy.address_fault(address) for address in case["answers"][0] if not address.startswith("@")]
    if faults:  # that nothing is dialled without an answer is the prober's matter
        # One address that is closed closes the name.
        assert any(faults) == (case["verdict"] == "block"), case["why"]


# ------------------------------------------------------------------ addresses


@pytest.mark.parametrize("cidr", [cidr for cidr, _ in NETWORKS])
def test_a_network_of_the_table_is_closed_from_its_first_address_to_its_last(cidr):
    network = ip_network(cidr)
    for address in (network[0], network[-1], network[network.num_addresses // 2]):
        # A narrower row may stand before this one: :: in ::/96.
        rows = (kind for row, kind in NETWORKS if address in ip_network(row))
        assert f"The address is {next(rows)}" in (DEFAULT.address_fault(str(address)) or "")


@pytest.mark.parametrize("cidr", [cidr for cidr, _ in NETWORKS])
def test_a_network_of_the_table_closes_nothing_beyond_its_edges(cidr):
    network = ip_network(cidr)
    beyond = {int(network[0]) - 1, int(network[-1]) + 1} - {-1, 2**network.max_prefixlen}
    for address in (type(network[0])(number) for number in beyond):
        others = [row for row, _ in NETWORKS if address in ip_network(row)]
        routed = address.version == 4 or address in ip_network("2000::/3")
        assert (DEFAULT.address_fault(str(address)) is None) == (routed and not others), address


@pytest.mark.parametrize(
    "address",
    [
        *("1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"),
        *("168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0"),
        *("191.255.255.255", "192.0.1.0", "192.0.3.0", "192.167.255.255", "192.169.0.0", "198.17.255.255"),
        *("198.20.0.0", "203.0.112.255", "203.0.114.0", "223.255.255.255", "8.8.8.8", "93.184.216.34"),
        *("2000::", "2001:200::", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::", "2003::"),
        *("2606:4700:4700::1111", "2600:1f18:1234::1", "2620:4f:7fff:ffff::", "2620:4f:8001::"),
        *("3ffe:ffff::", "3fff:1000::", "2606:4700::5eff:7f00:1", "2606:4700::1:5efe:7f00:1"),
    ],
)
def test_public_addresses_are_open(address):
    assert DEFAULT.address_fault(address) is None
    assert fault_of(url_of(address)) is None


# What a sentence calls each kind, whether the operator can open it, and an address of each network that is of the kind.
KINDS = (
    ("the loopback", True, ("127.0.0.1", "127.255.0.1", "::1")),
    ("a private address", True, ("10.0.0.1", "100.64.0.1", "172.16.0.1", "192.168.255.255", "fd12::1", "fec0::1")),
    ("a documentation address", True, ("192.0.2.1", "198.51.100.7", "203.0.113.1", "2001:db8::1", "3fff::1")),
    ("an address of network benchmarks", True, ("198.18.0.1",)),
    ("an address that the IETF keeps for its protocols", True, ("192.0.0.1", "2001:20::1")),
    (
        "an address that many networks share for one service",
        True,
        ("192.31.196.1", "192.52.193.1", "192.88.99.1", "192.175.48.1", "2620:4f:8000::1"),
    ),
    ("an address outside the public IPv6 internet", True, ("4000::1", "5f00::1", "100::1", "1fff:ffff::1")),
    ("a link-local address, where cloud metadata lives", False, ("169.254.169.254", "fe80::1", "fe80::1%eth0")),
    (
        "a cloud's metadata service",
        False,
        (
            *("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd00:42::42", "fd00:100::100:200"),
            *("fd00:a9fe:a9fe::1", "fd00:c1::a9fe:a9fe", "fd20:ce::254"),
        ),
    ),
    ("the unspecified address, which is this very machine", False, ("0.0.0.0", "0.1.2.3", "::")),
    ("a multicast address", False, ("224.0.0.1", "ff02::1")),
    ("a reserved address", False, ("240.0.0.1", "255.255.255.255")),
    (
        "an IPv4 address hidden in IPv6",
        False,
        (
            *("::ffff:1.1.1.1", "::ffff:0:1.1.1.1", "::1.1.1.1", "64:ff9b::1.1.1.1", "64:ff9b:1:a:b:c:1.1.1.1"),
            *("2002:101:101::1", "2001:0:101:101::1", "2606:4700::5efe:1.1.1.1", "2606:4700::200:5efe:1.1.1.1"),
            *("fd12::5efe:1.1.1.1", "4000::5efe:1.1.1.1"),
        ),
    ),
    (
        "one with a zone, which means something on one machine only",
        False,
        ("2606:4700::1%eth0", "2606:4700::1%", "2606:4700::1%1%2"),
    ),
    # A private address, but with a zone it can be opened by nobody.
    ("a private address", False, ("fd12::1%eth0",)),
)
CAN_BE_OPENED = "; the operator of this registry can open it with GUARD_OPEN_CIDRS"


@pytest.mark.parametrize(
    ("address", "kind", "openable"),
    [(address, kind, openable) for kind, openable, addresses in KINDS for address in addresses],
)
def test_a_sentence_names_the_kind_of_the_address_and_who_can_open_it(address, kind, openable):
    sentence = kind + (CAN_BE_OPENED if openable else "")
    assert DEFAULT.address_fault(address) == f"The address is {sentence}"
    if "%" not in address:
        assert DEFAULT.url_fault(url_of(address)) == f"The host is {sentence}"


@pytest.mark.parametrize(
    "text", ["", "example.com", "127.1", "0x7f.0.0.1", "127.0.0.01", "１.1.1.1", "::g", "[::1]", "%lo"]
)
def test_what_is_no_address_is_never_dialled(text):
    for policy in (DEFAULT, EVERYTHING):
        assert policy.address_fault(text) == "What stands for the address is not one"


def test_a_row_of_the_table_is_not_shadowed_by_one_before_it():
    for place, (cidr, _) in enumerate(NETWORKS):
        network = ip_network(cidr)
        for other, _ in NETWORKS[:place]:
            before = ip_network(other)
            assert before.version != network.version or not set_contains(before, network), (cidr, other)


def set_contains(outer, inner) -> bool:
    return outer.network_address <= inner.network_address and inner.broadcast_address <= outer.broadcast_address


NUMBERS = st.one_of(
    *(
        st.integers(max(int(network[0]) - 2, 0), min(int(network[-1]) + 2, 2**network.max_prefixlen - 1)).map(
            IPv4Address if network.version == 4 else IPv6Address
        )
        for network in [ip_network(cidr) for cidr, _ in NETWORKS]
    ),
    st.ip_addresses(),
)


@given(NUMBERS)
def test_what_this_python_calls_private_is_closed(address):
    """The table is stricter than any version of the standard library, in no place looser."""
    if DEFAULT.address_fault(str(address)) is None:
        assert address.is_global and not address.is_multicast and not address.is_reserved


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("opened", "address"),
    [
        ("10.0.0.0/8", "10.1.2.3"),
        (" 10.0.0.0/8 , ,fd00::/8,", "fd12::1"),
        ("127.0.0.0/8", "127.1.2.3"),
        ("::1/128", "::1"),
        ("100.64.0.0/10", "100.64.0.1"),
        ("198.18.0.0/15", "198.19.0.1"),
        ("4000::/16", "4000::1"),
        ("0.0.0.0/0", "192.168.1.1"),
        ("::/0", "fd12::1"),
    ],
)
def test_the_operator_opens_a_network(opened, address):
    policy = Policy.of({OPEN: opened})
    assert policy.address_fault(address) is None
    assert policy.url_fault(url_of(address)) is None
    assert DEFAULT.address_fault(address)


@pytest.mark.parametrize("address", ["10.0.1.0", "9.255.255.255", "11.0.0.0", "192.168.0.1", "127.0.0.1", "::1"])
def test_opening_a_network_opens_nothing_else(address):
    policy = Policy.of({OPEN: "10.0.0.0/24"})
    assert policy.address_fault(address) == DEFAULT.address_fault(address)


@pytest.mark.parametrize("cidr", [cidr for cidr, kind in NETWORKS if kind in NEVER])
def test_what_is_never_open_stays_closed_whatever_is_open(cidr):
    network = ip_network(cidr)
    for address in (network[0], network[-1]):
        fault = EVERYTHING.address_fault(str(address))
        assert fault and OPEN not in fault


@pytest.mark.parametrize(
    "address", ["::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::", "2600::5efe:a00:1"]
)
def test_opening_ipv4_does_not_open_it_inside_ipv6(address):
    assert Policy.of({OPEN: "10.0.0.0/8,0.0.0.0/0,2600::/16"}).address_fault(address)


@pytest.mark.parametrize(
    "cidr",
    [
        *("169.254.0.0/16", "169.254.169.254/32", "fe80::/10", "fe80::/64", "fd00:ec2::/32", "fd00:ec2::254/128"),
        *("100.100.100.200/32", "224.0.0.0/4", "239.1.0.0/16", "ff00::/8", "0.0.0.0/8", "0.0.0.0/32", "::/128"),
        *("255.255.255.255/32", "240.0.0.0/4", "::ffff:0:0/96", "::ffff:10.0.0.0/104", "64:ff9b::/96", "2002::/16"),
    ],
)
def test_what_can_never_be_opened_is_an_error_of_the_setting(cidr):
    with pytest.raises(
        ValueError, match=rf"^GUARD_OPEN_CIDRS: {cidr} can never be opened, because it is (an? |the ).+$"
    ):
        Policy.of({OPEN: f"10.0.0.0/8,{cidr}"})
    assert Policy.of({CLOSED: cidr})


@pytest.mark.parametrize(
    "cidr",
    [
        *("nonsense", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/255.0.0.0", "10.0.0.0/-1"),
        *("10.0.0.0/8;fd00::/8", "::1", "::1/129", "fe80::%eth0/64", "10.0.0/8", "10.0.0.0/８", "/8"),
    ],
)
@pytest.mark.parametrize("setting", [OPEN, CLOSED])
def test_a_setting_that_is_no_list_of_networks_is_an_error(setting, cidr):
    with pytest.raises(ValueError, match=r"is not a network such as 10\.0\.0\.0/8 or fd00::/8$") as error:
        Policy.of({setting: f"192.168.0.0/16, {cidr}"})
    assert setting in str(error.value) and repr(cidr) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_settings_are_named_as_the_template_names_them():
    environment = {"GUARD_OPEN_CIDRS": "10.0.0.0/8", "GUARD_CLOSED_CIDRS": "1.1.1.0/24"}
    assert Policy.of(environment).address_fault("10.0.0.1") is None
    assert Policy.of(environment).address_fault("1.1.1.1")


def test_closing_wins_over_opening():
    policy = Policy.of({OPEN: "10.0.0.0/8", CLOSED: "10.0.5.0/24,2600:1f18:abcd:1200::/56,1.1.1.0/24"})
    assert policy.address_fault("10.0.4.255") is None
    assert policy.address_fault("10.0.6.0") is None
    for address in ("10.0.5.0", "10.0.5.255", "2600:1f18:abcd:1200::7", "1.1.1.1"):
        assert (
            policy.address_fault(address) == "The address is an address that the operator of this registry has closed"
        )
        assert policy.url_fault(url_of(address))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://example.com:22/", "Port 22 belongs to another protocol than MCP over HTTP"),
        ("http://localhost:8080", f"The host is the loopback{CAN_BE_OPENED}"),
        ("http://metadata.goog/", "The host is a cloud's metadata service, or a service of the machine itself"),
        (
            "http://wiki.corp/",
            "Such a name exists inside one network only; the operator of this registry can open that with"
            " GUARD_OPEN_CIDRS",
        ),
    ],
)
def test_a_sentence_says_why_a_url_is_closed_and_how_it_is_opened_where_that_is_possible(url, sentence):
    assert DEFAULT.url_fault(url) == sentence


def test_of_the_two_addresses_of_localhost_the_first_one_gives_the_reason():
    fault = Policy.of({CLOSED: "127.0.0.1/32"}).url_fault("http://localhost/")
    assert fault == "The host is an address that the operator of this registry has closed"


def test_the_policy_follows_the_environment(monkeypatch):
    monkeypatch.delenv(OPEN, raising=False)
    monkeypatch.delenv(CLOSED, raising=False)
    assert guard.policy().address_fault("127.0.0.1")
    monkeypatch.setenv(OPEN, "127.0.0.0/8")
    assert guard.policy().address_fault("127.0.0.1") is None
    assert guard.policy() is guard.policy()


# ------------------------------------------------------------------ names

INTERNAL = [
    *("intranet", "vm", "a.local", "NAS.LAN", "x.internal", "x.localdomain.", "db.private", "a.test", "a.invalid"),
    *("printer.home.arpa", "wiki.corp", "wiki.home", "api.default.svc", "a.b.onion", "a.intranet", "a.alt"),
    *("web.consul", "db.docker", "a.localnet", "files.workgroup", "smtp.mail"),
]
PLATFORM = [
    *("metadata", "metadata.google.internal", "Metadata.Google.Internal.", "metadata.goog", "metadata.azure.internal"),
    *("instance-data", "instance-data.ec2.internal", "instance-data.eu-west-1.compute.internal"),
    *("sandbox", "sandbox.localdomain", "SANDBOX.localdomain.", "metadata.tencentyun.com", "rancher-metadata"),
]
ORDINARY = [
    "example.com",
    "local.example.com",
    "metadata.example.com",
    "localhost.example.com",
    "a.internal.example",
    "b.host",
]


@pytest.mark.parametrize("name", INTERNAL)
def test_a_name_of_one_network_is_closed_while_no_network_is_open(name):
    assert DEFAULT.url_fault(f"https://{name}/mcp")
    for opened in ("127.0.0.0/8", "10.0.0.0/8", "fd00::/8"):
        assert Policy.of({OPEN: opened}).url_fault(f"https://{name}/mcp") is None
    assert Policy.of({CLOSED: "10.0.0.0/8"}).url_fault(f"https://{name}/mcp")


@pytest.mark.parametrize("name", PLATFORM)
def test_the_names_of_a_platforms_own_services_are_never_open(name):
    for policy in (DEFAULT, LOOPBACK, EVERYTHING):
        assert policy.url_fault(f"http://{name}/")


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_name_passes_until_it_is_looked_up(name):
    assert fault_of(f"https://{name}/mcp") is None


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost.", "a.b.localhost", "a.LocalHost."])
def test_localhost_is_the_loopback_without_a_look_up(name):
    url = f"http://{name}:8080/mcp"
    assert guard.known(url) == ("127.0.0.1", "::1")
    assert "The host is the loopback" in (DEFAULT.url_fault(url) or "")
    for opened in ("127.0.0.0/8", "127.0.0.1/32", "::1/128", "0.0.0.0/0"):
        assert Policy.of({OPEN: opened}).url_fault(url) is None
    for environment in ({OPEN: "10.0.0.0/8"}, {OPEN: "127.0.0.2/32"}, {OPEN: "127.0.0.0/8", CLOSED: "127.0.0.1/32"}):
        assert Policy.of(environment).url_fault(url)


# ------------------------------------------------------------------ ports


# Whose ports they are. The first list is the standard's, as of 2026-11-22.
OTHER_PROTOCOLS = {
    "bad ports of the Fetch standard": (
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104),
        *(109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515),
        *(526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049),
        *(3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
    ),
    "services inside of Lambda": (2000, 2773, 4317, 4318, 9001),
    "Docker and etcd": (2375, 2376, 2377, 2379, 2380),
    "Kubernetes": (6443, 10248, 10249, 10250, 10255, 10256, 10257, 10259),
    "files and desktops": (445, 873, 3389, 5900, 5985, 5986),
    "SQL": (1433, 1521, 3306, 5432, 5439),
    "other databases": (5984, 6379, 6380, 9042, 9200, 9300, 11211, 27017, 27018, 27019),
    "queues": (2181, 4222, 4369, 5671, 5672, 9092, 25672),
}


@pytest.mark.parametrize("ports", [pytest.param(ports, id=name) for name, ports in OTHER_PROTOCOLS.items()])
def test_a_port_of_another_protocol_is_closed_whatever_is_open(ports):
    for port in ports:
        for policy in (DEFAULT, EVERYTHING):
            for host in ("example.com", "localhost", "1.1.1.1", "[2606:4700::1]"):
                assert f"Port {port} " in (policy.url_fault(f"http://{host}:{port}/mcp") or ""), port


@pytest.mark.parametrize(
    "port", [80, 443, 3000, 3001, 4000, 5000, 5173, 6274, 6277, 7000, 8000, 8080, 8443, 8888, 9000]
)
def test_a_port_on_which_mcp_servers_live_is_open(port):
    assert fault_of(f"https://example.com:{port}/mcp") is None


def test_zeros_before_a_port_do_not_hide_it():
    assert DEFAULT.url_fault("http://example.com:00022/")


def test_ports_that_systems_hand_out_by_chance_are_open():
    assert max(guard.PORTS) < 32_768
    assert not guard.PORTS & {*range(7_000, 9_000)}


# ------------------------------------------------------------------ parts of a URL


@pytest.mark.parametrize(
    ("url", "host", "port", "literal"),
    [
        ("http://example.com", "example.com", 80, None),
        ("HTTPS://EXAMPLE.com./mcp", "example.com", 443, None),
        ("http://192.0.2.1:8080/x:9@", "192.0.2.1", 8080, "192.0.2.1"),
        ("https://[2606:4700::A]/", "2606:4700::a", 443, "2606:4700::a"),
        ("http://[2606:4700::1]:00080", "2606:4700::1", 80, "2606:4700::1"),
        ("http://localhost:8080", "localhost", 8080, None),
        ("http://10.example.com/", "10.example.com", 80, None),
        ("http://X.example.XX", "x.example.xx", 80, None),
    ],
)
def test_the_host_and_the_port_of_a_url(url, host, port, literal):
    assert (guard.host(url), guard.port(url), guard.literal(url)) == (host, port, literal)


# ------------------------------------------------------------------ the look-up


def test_a_look_up_asks_for_the_port_too_and_does_not_keep_the_process_from_ending(monkeypatch):
    asked: list[object] = []
    daemons: list[bool] = []

    def resolver(*arguments: object, **options: object) -> list[Any]:
        asked.append((arguments, options))
        daemons.append(threading.current_thread().daemon)
        while time.perf_counter() - began < 0.05:  # the answer takes a while, and is waited for
            pass
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 8080))]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setattr(guard, "SECONDS", 30.0)  # a busy machine may take its second for nothing
    began = time.perf_counter()
    fault = guard.look_up_fault("http://A.example.com:8080/mcp", DEFAULT)
    assert fault == f"The name leads to the loopback{CAN_BE_OPENED}"
    assert asked == [(("a.example.com", 8080), {"type": socket.SOCK_STREAM})]
    assert daemons == [True]


def test_a_look_up_takes_at_most_a_quarter_of_what_the_database_may_take_after_it():
    assert 4 * guard.SECONDS <= db.REQUEST_SECONDS


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "unknown"), UnicodeError("label too long")])
def test_a_name_that_the_resolver_refuses_passes_without_a_word(monkeypatch, error):
    def resolver(*arguments: object, **options: object) -> list[Any]:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    monkeypatch.setattr(guard, "SECONDS", 30.0)
    assert guard.look_up_fault("http://a.example.com/", DEFAULT) is None


# ------------------------------------------------------------------ no spelling gets past it


def octal(number: int) -> str:
    return f"0{number:o}"


def shortened(address: IPv4Address, parts: int) -> list[int]:
    """The address as inet_aton reads it in fewer parts: the last part takes the bytes that are left."""
    packed = address.packed
    return [*packed[: parts - 1], int.from_bytes(packed[parts - 1 :])]


FULL_WIDTH = str.maketrans("0123456789.", "０１２３４５６７８９。")
RADIXES = (
    str,
    hex,
    octal,
    lambda number: f"0X{number:X}",
    lambda number: f"{number:03}",
    lambda number: f"0x{number:08x}",
)
WRAPPED = (
    "::ffff:{}",
    "::{}",
    "::ffff:0:{}",
    "64:ff9b::{}",
    "64:ff9b:1::{}",
    "2606:4700::5efe:{}",
    "fe80::200:5efe:{}",
)
TEMPLATES = (
    *(
        "http://{}/",
        "http://{}:8080",
        "HTTP://{}./mcp",
        "http://{}..",
        "http://[{}]/",
        "http://[{}]:80",
        "http://[{}%25lo]/",
    ),
    *(
        "http://[{}%lo]/",
        "http://example.com@{}/",
        "http://{}@example.com/",
        "http://{}:80@example.com:80/",
        "http://@{}/",
    ),
    *("http://example.com\\@{}/", "http://{}\\.example.com/", "http://{}#@example.com/", "http://example.com#@{}/"),
    *(
        "http://{}%2f.example.com/",
        "http://{}%00.example.com/",
        "http://{} .example.com/",
        "http://\t{}/",
        "http://{}\u3002",
    ),
    *(
        "http:/{}/",
        "//{}/",
        "http:\\\\{}\\",
        "http://{},example.com/",
        "http://{}:+80/",
        "http://{}.0x/",
        "http://0x.{}/",
    ),
)


@st.composite
def spellings(draw) -> str:
    """A URL that spells an address in one of the ways that some program somewhere understands."""
    address = draw(NUMBERS)
    if address.version == 4:
        text = draw(st.sampled_from(WRAPPED)).format(address) if draw(st.booleans()) else ipv4(draw, address)
    else:
        text = draw(st.sampled_from([str(address), address.exploded, str(address).upper(), dotted(address)]))
    # Half of them in plain dress, because most of the others are no URL to begin with.
    url = url_of(text) if draw(st.booleans()) else draw(st.sampled_from(TEMPLATES)).format(text)
    match draw(st.sampled_from(["plain", "plain", "full width", "escaped"])):
        case "full width":
            return "http" + url[4:].translate(FULL_WIDTH)
        case "escaped":
            place = draw(st.integers(0, len(url) - 1))
            return f"{url[:place]}%{ord(url[place]) & 255:02x}{url[place + 1 :]}"
        case _:
            return url


def ipv4(draw, address: IPv4Address) -> str:
    parts = shortened(address, draw(st.integers(1, 4)))
    return ".".join(draw(st.sampled_from(RADIXES))(part) for part in parts)


def dotted(address: IPv6Address) -> str:
    """The last 32 bits as four decimal numbers."""
    return ":".join(address.exploded.split(":")[:6]) + f":{IPv4Address(int(address) & 0xFFFF_FFFF)}"


def addresses_read_by_the_system(host: str) -> set[str]:
    """What getaddrinfo makes of a text without asking anybody; nothing where it is a name."""
    try:
        return {str(answer[4][0]) for answer in socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)}
    except (OSError, UnicodeError, ValueError):
        return set()


@pytest.mark.parametrize("policy", [DEFAULT, LOOPBACK, EVERYTHING], ids=["default", "loopback", "everything"])
@settings(max_examples=400, deadline=None)
@given(url=spellings())
def test_no_spelling_smuggles_a_closed_address_past_the_guard(policy, url):
    if fault_of(url, policy):
        return
    # What passed means the same host to every reader of URLs, and to the resolver an open address, or a name.
    name = urlsplit(url).hostname
    assert name is not None
    assert name.removesuffix(".") == guard.host(url)
    read = addresses_read_by_the_system(name) | addresses_read_by_the_system(guard.host(url))
    assert [address for address in read if policy.address_fault(address)] == []
    assert bool(read) == bool(guard.literal(url))


@given(NUMBERS)
def test_an_address_means_to_the_guard_what_it_means_to_the_system(address):
    """The property above is about something: addresses in plain dress do pass, and keep their value."""
    url = url_of(str(address))
    assert {ip_address(read) for read in addresses_read_by_the_system(guard.host(url))} == {address}
    assert (fault_of(url) is None) == (DEFAULT.address_fault(str(address)) is None)


# ------------------------------------------------------------------ whom the guard is compared with


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "127.0.0.1", "192.0.2.1", "192.31.196.1", "198.18.0.1", "::1", "fc00::1", "fec0::1", "4000::1"),
        *("100::1", "5f00::1", "2001:db8::1", "3fff::1", "2001:20::1", "2620:4f:8000::1"),
    ],
)
def test_the_lists_of_the_proof_close_what_is_set_aside_until_it_is_opened(address):
    assert oracle(address)
    assert not oracle(address, ("0.0.0.0/0", "::/0"))


@pytest.mark.parametrize(
    "address",
    [
        *(
            *METADATA,
            "0.0.0.1",
            "::",
            "169.254.0.1",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "2600::1%lo",
        ),
        *("::1.1.1.1", "::ffff:1.1.1.1", "::ffff:0:1.1.1.1", "64:ff9b::1.1.1.1", "64:ff9b:1::1", "2001::1", "2002::1"),
        *("2606:4700::5efe:7f00:1", "2606:4700::200:5efe:7f00:1", "fd00::5efe:101:101"),
    ],
)
def test_the_lists_of_the_proof_close_for_good_what_nobody_may_open(address):
    assert oracle(address, ("0.0.0.0/0", "::/0"))
    assert EVERYTHING.address_fault(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "168.63.129.17", "2600::5eff:7f00:1", "2606:4700::1111", "2003::1"])
def test_the_lists_of_the_proof_leave_public_addresses_open(address):
    assert not oracle(address)
