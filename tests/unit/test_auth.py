"""Basic credentials: what is let in, and what is not."""

from base64 import b64encode

import pytest

from mcp_registry.access import admission, auth
from tests.conftest import ROOT, load_module


def header(credentials: str | bytes, scheme: str = "Basic") -> str:
    raw = credentials.encode() if isinstance(credentials, str) else credentials
    return f"{scheme} {b64encode(raw).decode()}"


@pytest.fixture(autouse=True)
def configured(monkeypatch):
    monkeypatch.delenv("REGISTRY_SECRET_ARN", raising=False)
    monkeypatch.setenv("REGISTRY_USERNAME", "admin")
    monkeypatch.setenv("REGISTRY_PASSWORD", "pass:word")
    admission.forget()


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC", "bAsIc"])
def test_the_scheme_is_matched_in_any_case(scheme):
    assert auth.permits(header("admin:pass:word", scheme))


def test_the_password_is_everything_after_the_first_colon():
    assert auth.parse(header("admin:a:b:c")) == (b"admin", b"a:b:c")


@pytest.mark.parametrize(
    "credentials",
    [
        "admin:pass",
        "admin:pass:wor",
        "admin:pass:word ",
        "admin:pass:word\0",
        "Admin:pass:word",
        "admin:",
        ":",
        "admin",
    ],
)
def test_anything_but_the_exact_credentials_is_refused(credentials):
    assert not auth.permits(header(credentials))


@pytest.mark.parametrize("scheme", ["Bearer", "Digest", "Basic2", "asic", ""])
def test_the_right_credentials_by_another_scheme_are_refused(scheme):
    assert auth.permits(header("admin:pass:word", scheme)) is False


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic",
        "Basic ",
        "Bearer abc",
        "Basic None",
        "Basic !!!!",
        "Basic YWRtaW46cGFzczp3b3Jk=",  # padding that an encoder would not write
        "Basic YWRtaW46cGFzczp3b3Jk ",
        "Basic  YWRtaW46cGFzczp3b3Jk",
        "Basic\tYWRtaW46cGFzczp3b3Jk",
        "Basic eDp5, Basic YWRtaW46cGFzczp3b3Jk",
        header(b"\xff\xfe:\xff"),
        "Basic " + "YWFh" * 16_000,
    ],
)
def test_what_is_not_a_well_formed_header_is_refused_without_an_error(value):
    assert auth.permits(value) is False


@pytest.mark.parametrize("credentials", ["admin", "", b"\xff:word", b"admin:\xff", b"\xed\xa0\x80:word"])
def test_what_is_no_user_name_and_password_in_utf_8_is_not_compared_at_all(credentials):
    assert auth.parse(header(credentials)) is None


def test_a_header_of_eight_kibibytes_is_read_and_a_longer_one_is_not():
    longest = header("admin:".ljust((auth.MAX_HEADER_LENGTH - len("Basic ")) // 4 * 3, "x"))
    # Base64 comes in fours, so that no header is of exactly the limit.
    assert auth.MAX_HEADER_LENGTH - 4 < len(longest) <= auth.MAX_HEADER_LENGTH == 8_192
    assert auth.parse(longest) is not None
    assert auth.parse(header("admin:".ljust(len(longest) // 4 * 3, "x"))) is None


def test_base64_with_other_trailing_bits_is_not_a_second_spelling_of_a_credential(monkeypatch):
    monkeypatch.setenv("REGISTRY_PASSWORD", "password")
    assert auth.permits("Basic YWRtaW46cGFzc3dvcmQ=")
    assert not auth.permits("Basic YWRtaW46cGFzc3dvcmR=")


def test_a_password_beyond_ascii_is_compared_byte_for_byte(monkeypatch):
    monkeypatch.setenv("REGISTRY_PASSWORD", "päßwörd😀")
    assert auth.permits(header("admin:päßwörd😀"))
    assert not auth.permits(header("admin:päßwörd"))
    assert not auth.permits(header("admin:pa\u0308ßwörd😀"))


@pytest.mark.parametrize("missing", ["REGISTRY_USERNAME", "REGISTRY_PASSWORD"])
@pytest.mark.parametrize("credentials", ["admin:pass:word", ":", "admin:", ":pass:word"])
def test_without_a_configured_half_no_credential_is_right(monkeypatch, missing, credentials):
    monkeypatch.setenv(missing, "")
    with pytest.raises(auth.NotConfigured):
        auth.permits(header(credentials))
    monkeypatch.delenv(missing)
    with pytest.raises(auth.NotConfigured):
        auth.permits(header(credentials))


# ------------------------------------------------------------------ the cron secret


@pytest.mark.parametrize("configured", ["cron", "päßwörd😀", "\udce9"])
def test_the_cron_secret_starts_a_job_and_nothing_else_does(monkeypatch, configured):
    # The last one is what Python makes of a setting that is not UTF-8.
    monkeypatch.setenv("CRON_SECRET", configured)
    assert auth.permits_job(configured) is True
    for wrong in ("", configured + " ", configured * 2, "Cron", "cro", "päßwörd", "\udce8", "\ud83d"):
        assert auth.permits_job(wrong) is False


@pytest.mark.parametrize("given", ["", "cron", "None"])
def test_without_a_cron_secret_nothing_starts_a_job(monkeypatch, given):
    monkeypatch.delenv("CRON_SECRET", raising=False)
    with pytest.raises(auth.NotConfigured):
        auth.permits_job(given)
    monkeypatch.setenv("CRON_SECRET", "")
    with pytest.raises(auth.NotConfigured):
        auth.permits_job(given)


# ------------------------------------------------------------------ the authorizer

STAGE = "arn:aws:execute-api:eu-west-1:123456789012:registry00/v1"


@pytest.fixture(scope="module")
def authorizer():
    return load_module(ROOT / "functions" / "authorizer" / "app.py", "authorizer_app").lambda_handler


def ask(authorizer, *values: str, route: str = "GET/api/registry/servers", name: str = "Authorization"):
    """What the authorizer answers to a request with these Authorization headers."""
    event = {
        "type": "REQUEST",
        "methodArn": f"{STAGE}/{route}",
        "multiValueHeaders": {"Host": ["x"], **({name: [*values]} if values else {})},
        "requestContext": {"identity": {"sourceIp": "192.0.2.1"}},
    }
    return authorizer(event, None)


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
@pytest.mark.parametrize("route", ["GET/", "GET/api/registry/servers", "POST/api/registry/servers/1/v1/2"])
def test_the_authorizers_answer_is_for_the_whole_stage_and_nothing_else(authorizer, route, name):
    assert ask(authorizer, header("admin:pass:word"), route=route, name=name) == {
        "principalId": "admin",
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": f"{STAGE}/*"}],
        },
        "context": {"role": "admin", "team": "default"},
    }


def test_the_authorizer_names_the_user_as_it_was_written(authorizer, monkeypatch):
    monkeypatch.setenv("REGISTRY_USERNAME", "Änn 😀")
    assert ask(authorizer, header("Änn 😀:pass:word"))["principalId"] == "Änn 😀"


@pytest.mark.parametrize("token", ["", "Basic", header("admin:wrong"), header("other:pass:word"), "Bearer x", "Bearer"])
def test_the_authorizer_denies_every_route_and_says_nothing_of_who_was_refused(authorizer, token, capsys):
    assert ask(authorizer, token) == {
        "principalId": "nobody",
        "policyDocument": {
            "Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": "Deny", "Resource": f"{STAGE}/*"}],
        },
    }
    assert "".join(capsys.readouterr()) == ""


def test_without_a_configured_credential_the_authorizer_fails(authorizer, monkeypatch):
    monkeypatch.delenv("REGISTRY_PASSWORD")
    with pytest.raises(auth.NotConfigured):
        ask(authorizer, header("admin:pass:word"))


@pytest.mark.parametrize("values", [[], [header("admin:pass:word")] * 2, [header("admin:pass:word"), "Basic x"]])
def test_what_has_no_one_credential_is_refused_and_not_remembered(authorizer, values):
    """Of two headers nobody knows for which of them API Gateway would remember the answer."""
    with pytest.raises(admission.Unauthorized, match=r"^Unauthorized$"):
        ask(authorizer, *values)


def test_the_input_of_the_release_before_is_answered_alike(authorizer):
    """While a stack is upgraded, its stage still asks by an input of type TOKEN, which tells no address."""
    arn = "arn:aws:execute-api:eu-west-1:123456789012:abcdef/v1/GET/x"
    for _ in range(30):  # more wrong ones than an address may send
        wrong = authorizer({"type": "TOKEN", "authorizationToken": "Basic eDp5", "methodArn": arn}, None)
        assert wrong["policyDocument"]["Statement"][0]["Effect"] == "Deny"
    right = "Basic " + b64encode(b"admin:pass:word").decode()
    told = authorizer({"type": "TOKEN", "authorizationToken": right, "methodArn": arn}, None)
    assert told["policyDocument"]["Statement"][0]["Effect"] == "Allow" and told["principalId"] == "admin"
    assert told["context"] == {"role": "admin", "team": "default"}


@pytest.mark.parametrize(
    ("named", "trusted"),
    [
        (None, [True, True, True]),
        ("", [True, True, True]),
        (" , ", [True, True, True]),
        ("https://a.example", [True, False, False]),
        ("https://a.example,https://b.example/x", [True, True, False]),
        ("https://a.example, https://b.example/x", [True, True, False]),
        ("https://a.example https://b.example/x", [True, True, False]),
        ("https://none.example", [False, False, False]),
    ],
)
def test_the_issuers_that_a_deployment_names_are_trusted_and_no_others_and_all_where_it_names_none(
    monkeypatch, named, trusted
):
    if named is None:
        monkeypatch.delenv("TRUSTED_ISSUERS", raising=False)
    else:
        monkeypatch.setenv("TRUSTED_ISSUERS", named)
    asked = ("https://a.example", "https://b.example/x", "https://b.example")
    assert [auth.trusts(issuer) for issuer in asked] == trusted
