"""URLs of a registration: strict about spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_registry import urls

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
        "http://example.com/h",
        "https://example.com:8443/h",
        "health",
        "/a/../b",
        "/h#f",
        "https://a.b/",
    ],
)
def test_a_health_url_elsewhere_is_refused(url):
    assert urls.health_fault(url, "https://example.com/mcp")
