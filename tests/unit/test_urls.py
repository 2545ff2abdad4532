"""URLs of a registration: strict about spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_registry.dial import urls

GOOD = [
    "http://localhost:8080",
    "https://mcp.example.com/mcp",
    "HTTP://EXAMPLE.COM/",
    "https://example.com./mcp",
    "https://xn--fsqu00a.xn--0zwm56d/",
    "https://my_server.example.com/",
    "https://127-0-0-1.example.com/",
    "https://10.example.com/",
    "https://0x7f.example.com/",
    "https://3com.example/",
    "https://example.com/a%20b/~user;x=1",
    "http://8.8.8.8:65535/",
    "http://[2600:1f18:1234::1]:8080/mcp",
    "https://" + "a" * 63 + ".example.com/",
]
BAD = [
    "",
    "example.com",
    "ftp://example.com/",
    "javascript:alert(1)",
    "http:/example.com",
    "http:///x",
    "http://?",
    "http://user:secret@example.com/",
    "http://@example.com/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:80a/",
    "http://example.com:/x:y@z/",
    "http://example..com/",
    "http://-example.com/",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 130 + "com/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://127.1/",
    "http://127.0.0.01/",
    "http://127.0.0.256/",
    "http://127.0.0.1./",
    "http://1.2.3.4.5/",
    "http://example.0x7f/",
    "http://[::1%25lo]/",
    "http://[::1",
    "http://[127.0.0.1]/",
    "http://[::1]x/",
    "http://127．0．0．1/",
    "http://ⓔxample.com/",
    "http://example.com\\@127.0.0.1/",
    "http://exam{ple}.com/",
    "http://example.com/\r\nX: y",
    " http://example.com/",
    "http://example.com/a b",
    "http://example.com/%zz",
    "http://example.com/%00",
    "http://example.com/\u2028",
]


@pytest.mark.parametrize("url", GOOD)
def test_ordinary_endpoints_are_accepted(url):
    assert urls.endpoint_fault(url) is None


@pytest.mark.parametrize("url", BAD)
def test_what_parsers_read_differently_is_refused(url):
    assert urls.link_fault(url)
    assert urls.endpoint_fault(url)


@pytest.mark.parametrize("rest", ["?x=1", "#top", "/../admin", "/a/%2E%2e/b", "/./x", "/.."])
def test_an_endpoint_is_a_plain_path(rest):
    assert urls.endpoint_fault("https://example.com" + rest)


def test_a_link_may_have_a_query_and_a_fragment():
    assert urls.link_fault("https://example.com/docs?page=1#top") is None


@given(st.text())
def test_no_text_makes_the_checks_fail_themselves(text):
    for fault in (urls.link_fault, urls.endpoint_fault, urls.repository_fault):
        assert fault(text) is None or isinstance(fault(text), str)
    urls.health_fault(text, "https://example.com/mcp")


@pytest.mark.parametrize("url", ["git@github.com:ann/weather.git", "deploy@host:path", "https://github.com/a/b"])
def test_a_repository_is_a_link_or_an_scp_path(url):
    assert urls.repository_fault(url) is None


@pytest.mark.parametrize(
    "url", ["git@:x", "git@host", "git@host://x", "git@-bad:x", "git@host:a b", "javascript:alert(1)"]
)
def test_other_repositories_are_refused(url):
    assert urls.repository_fault(url)


@pytest.mark.parametrize("url", ["/health", "/healthz?full=1", "https://example.com/h", "https://EXAMPLE.com:443/h"])
def test_a_health_url_has_the_endpoints_origin(url):
    assert urls.health_fault(url, "https://example.com/mcp") is None


@pytest.mark.parametrize(
    "url",
    [
        "//evil.example/h",
        "http://example.org/h",
        "https://health.example.com/h",
        "https://example.com.evil.example/h",
        "health",
        "/a/../b",
        "/h#f",
        "https://a.b/",
    ],
)
def test_a_health_url_elsewhere_is_refused(url):
    assert urls.health_fault(url, "https://example.com/mcp")


# ------------------------------------------------------------------ the sentences

CHARACTERS = "A URL has printable ASCII characters only: percent-encode others, and write host names in punycode"
UNSAFE = "The URL holds a character or an escape that URLs do not have"
SCHEME = "The URL must start with http:// or https://"
CREDENTIALS = "The URL may not hold a user name or a password"
AUTHORITY = "The host or the port is not valid"
PORT = "The port must be a number from 1 to 65535"
NAME = "The host is not a valid name"
IPV4 = "An IPv4 address is written as four decimal numbers: 192.0.2.1"
IPV6 = "The IPv6 address in brackets is not valid"
SEGMENTS = "The path may not hold '.' or '..' segments"
PLAIN = "An endpoint has no query and no fragment: health checks append to its path"
OR_A_PATH = " (or give a path that starts with '/')"

LINK_SENTENCES = {
    CHARACTERS: ["http://ⓔxample.com/", "http://example.com/a b", "http://example.com/\n", "\x7f"],
    UNSAFE: [f"http://example.com/{each}" for each in '"<>\\^`{|}']
    + [*(f"http://example.com/{each}" for each in ("%", "%2", "%zz", "%g0", "%0g", "%00", "a%00b", "x?y=%", "#%%20"))],
    SCHEME: ["", "/", "example.com", "ftp://example.com/", "http:/example.com", "httpss://example.com", "http"],
    CREDENTIALS: ["http://ann@example.com/", "http://ann:secret@example.com/", "http://@/"],
    AUTHORITY: [
        *(
            "http://[::1",
            "http://::1]/",
            "http://[::1]x/",
            "http://a:b/",
            "http://a:/",
            "http://a:+80/",
            "http://a:1:2/",
        ),
        "http://a:000080/",
    ],
    PORT: ["http://a:0/", "http://a:00000/", "http://a:65536/", "http://a:99999/"],
    NAME: [
        *(
            "http:///",
            "http://.",
            "http://a..b/",
            "http://.a/",
            "http://a../",
            "http://-a/",
            "http://a-/",
            "http://a.-b/",
        ),
        *("http://a!/", "http://a%20b/", f"http://{'a' * 64}/", f"http://{'a.' * 127}/"),
    ],
    IPV4: [
        *(
            "http://1/",
            "http://1.2.3/",
            "http://1.2.3.4.5/",
            "http://1.2.3.256/",
            "http://1.2.3.04/",
            "http://1.2.3.4./",
        ),
        *(
            "http://a.1/",
            "http://a.b.c.1/",
            "http://0x7f/",
            "http://0X7F/",
            "http://0xAb/",
            "http://a.0x/",
            "http://00.0.0.0/",
        ),
    ],
    IPV6: ["http://[]/", "http://[:1]/", "http://[a::1::]/", "http://[1.2.3.4]/", "http://[x::1]/", "http://[::1x]/"],
}
GOOD_LINKS = [
    *("http://[::1]/", "http://[1::]/", "http://[::]:1/", "http://[2600:1F18::A]", "http://[::ffff:1.2.3.4]/"),
    *("http://0.0.0.0/", "http://255.255.255.255/", "http://9.10.99.100/", "http://192.0.2.1:65535/", "http://a:1/"),
    *("http://1a/", "http://0xg/", "http://1.a/", "http://0x7f.a/", "http://a.1b/", "http://a.x0/", "http://_/"),
    *("http://a/%2F%2f%aF%01%09", "http://a/!~'()*;:@&=+$,[]", "http://a?b", "http://a#b", "http://a/?", "http://a/#"),
    *("HTTPS://A.Z.a.z.0.9-_-9/", "http://a.b.", f"http://{'a' * 63}/", "http://a/@", "http://a/x:y@z", "hTTp://a"),
    *("http://a/#x#y", "http://a/?x?y", "http://a/?x#y?z", "http://a/../b"),
]


@pytest.mark.parametrize(
    ("sentence", "url"), [(sentence, url) for sentence, bad in LINK_SENTENCES.items() for url in bad]
)
def test_a_sentence_says_what_is_wrong_with_a_link(sentence, url):
    assert urls.link_fault(url) == urls.endpoint_fault(url) == sentence


@pytest.mark.parametrize("url", GOOD_LINKS)
def test_the_edges_of_what_a_link_may_be_are_in_it(url):
    assert urls.link_fault(url) is None


@pytest.mark.parametrize("rest", ["?", "#", "?x=1", "#top", "/mcp?", "/mcp#", "?#"])
def test_an_endpoint_has_neither_query_nor_fragment_be_they_empty(rest):
    assert urls.endpoint_fault("http://a" + rest) == PLAIN


@pytest.mark.parametrize("path", ["/.", "/..", "/./", "/a/../b", "/%2e", "/%2E.", "/.%2e/b", "/%2E%2e"])
def test_a_path_that_leads_up_is_refused_in_every_spelling(path):
    assert urls.endpoint_fault("http://a" + path) == SEGMENTS
    assert urls.health_fault(path, "http://a/mcp") == SEGMENTS
    assert urls.health_fault("http://a" + path, "http://a/mcp") == SEGMENTS
    assert urls.health_fault(path + "?x=1", "http://a/mcp") == SEGMENTS


@pytest.mark.parametrize(
    "path", ["", "/", "/...", "/.a", "/a.", "/a..", "/..a/", "/.%2e%2e", "/%2f..a", "//a//", "/a./b"]
)
def test_a_path_with_dots_in_its_names_is_an_ordinary_one(path):
    assert urls.endpoint_fault("http://a" + path) is None
    assert urls.health_fault("http://a" + path, "http://a/mcp") is None


def test_a_segment_of_dots_after_the_path_leads_nowhere():
    assert urls.health_fault("/h?a/../b", "http://a/mcp") is None


def test_a_host_of_253_characters_is_a_name_and_one_of_254_is_not():
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert len(longest) == urls.MAX_HOST_LENGTH == 253
    assert urls.link_fault(f"http://{longest}/") is None
    assert urls.link_fault(f"http://{longest}d/") == NAME


def test_a_url_may_have_2048_characters():
    assert urls.MAX_LENGTH == 2_048  # the columns are as wide


# ------------------------------------------------------------------ origins


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://A.Example:80/x?y#z", "http://a.example"),
        ("HTTPS://a.example:443", "https://a.example"),
        ("http://a.example:443/", "http://a.example:443"),
        ("https://a.example:80/", "https://a.example:80"),
        ("https://a.example:8443/", "https://a.example:8443"),
        ("http://[2600::A]:80/", "http://[2600::a]"),
        ("http://a.example", "http://a.example"),
    ],
)
def test_an_origin_leaves_out_the_port_of_its_scheme_only(url, origin):
    assert urls.origin(url) == origin


@pytest.mark.parametrize(
    ("health", "endpoint"),
    [
        ("http://a:80/h", "http://a/mcp"),
        ("http://a/h", "http://a:80/mcp"),
        ("HTTP://A/h", "http://a/mcp"),
        ("/", "https://[::1]:8443/mcp"),
        ("/h?", "http://a/mcp"),
        ("/h//x", "http://a/mcp"),
        ("http://a", "http://a/mcp"),
        ("http://a:8081/actuator/health", "https://a/mcp"),
        ("http://A.:8081/h", "http://a/mcp"),
        ("http://[::1]:8081/h", "http://[::1]/mcp"),
    ],
)
def test_a_health_url_is_of_the_same_host_however_that_is_written(health, endpoint):
    assert urls.health_fault(health, endpoint) is None


@pytest.mark.parametrize(
    ("health", "sentence"),
    [
        ("health", SCHEME + OR_A_PATH),
        ("", SCHEME + OR_A_PATH),
        ("//a/h", SCHEME + OR_A_PATH),
        ("http://b@a/h", CREDENTIALS + OR_A_PATH),
        ("http://b/h", "The health URL must have the host of endpoint_url; its port may be another one"),
        ("http://a.b/h", "The health URL must have the host of endpoint_url; its port may be another one"),
        ("/h#", "The health URL has no fragment"),
        ("/h#f", "The health URL has no fragment"),
        ("http://a/h?x#f", "The health URL has no fragment"),
        ("/h x", CHARACTERS),
        ("/%", UNSAFE),
    ],
)
def test_a_sentence_says_what_is_wrong_with_a_health_url(health, sentence):
    assert urls.health_fault(health, "http://a/mcp") == sentence


# ------------------------------------------------------------------ repositories


@pytest.mark.parametrize(
    "url", ["A.b-C_0@Git.Example-1.com:a/b", "git@a.:x", "z@Z:!~", "git@a:/x", "git@0.a:x", "git@1.2.3.4:x", "0@a:x"]
)
def test_an_scp_path_has_a_user_a_host_and_a_path(url):
    assert urls.repository_fault(url) is None


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("git@a:", SCHEME),
        ("git@a://x", SCHEME),
        ("@a:x", SCHEME),
        ("g:t@a:x", SCHEME),
        ("git@a_b:x", SCHEME),
        ("git@a:x\x7f", CHARACTERS),
        ("git@a..b:x", NAME),
        ("git@1.2.3:x", IPV4),
        ("git@0x7f:x", IPV4),
    ],
)
def test_a_sentence_says_what_is_wrong_with_a_repository(url, sentence):
    assert urls.repository_fault(url) == sentence
