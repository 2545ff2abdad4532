"""Who the client says it is: a token, the role that it has on AWS, or a user and a password."""

from __future__ import annotations

import json
import logging
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Botocore

from client.tests.conftest import Asked, Script, Scripted, answers, in_turn
from client.tests.test_announcer import CREATED, KNOWN, QUICK, REQUIRED, Fixed, Start, warnings
from mcp_registry_client import _aws, _options, _settings, _transport, cli
from mcp_registry_client._announcer import Registration
from mcp_registry_client._ending import Stopped
from mcp_registry_client._identity import Identities, NoIdentity
from tests.conftest import registration

ROLE = "arn:aws:iam::123456789012:role/payments-refunds"
TOKEN = "mcpr_0123456789ab_s3cr3tS3cr3tS3cr3tS3cr3tS3cr3tS3cr3tS3cr_Ab12Cd"
REFUSED = answers(401, {"error": "Valid credentials are required", "code": "UNAUTHORIZED"})


def jwt(subject: object = ROLE, mark: str = "1") -> str:
    """What STS signs, as far as the client reads it."""
    parts = ({"alg": "ES384"}, {"sub": subject, "jti": mark})
    encoded = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join((*encoded, "c2lnbmF0dXJl"))


class Aws:
    """STS, and the addresses at which AWS puts credentials: what they were asked, and what they say."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.says: dict[tuple[str, str], tuple[int, str]] = {}
        self.signed = 0
        aws = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                aws.asked.append((self.command, self.path, headers, body))
                status, text = aws.said(self.command, self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_PUT = do_POST = answer  # noqa: N815 - the names of the base class

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def said(self, method: str, path: str) -> tuple[int, str]:
        if (method, path) in self.says:
            return self.says[method, path]
        if method != "POST":
            return 404, ""
        self.signed += 1
        token = jwt(mark=str(self.signed))
        return 200, (
            '<GetWebIdentityTokenResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetWebIdentityTokenResult>'
            f"<WebIdentityToken>{token}</WebIdentityToken><Expiration>2030-01-01T00:00:00Z</Expiration>"
            "</GetWebIdentityTokenResult></GetWebIdentityTokenResponse>"
        )

    @property
    def forms(self) -> list[dict[str, list[str]]]:
        """What STS was asked."""
        return [parse_qs(body.decode()) for method, path, _, body in self.asked if (method, path) == ("POST", "/")]


@pytest.fixture
def aws() -> Iterator[Aws]:
    played = Aws()
    yield played
    played.server.shutdown()
    played.server.server_close()


def on_lambda(aws: Aws, **more: str) -> dict[str, str]:
    """The environment of a function."""
    return {
        "AWS_LAMBDA_FUNCTION_NAME": "refunds",
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t-key",
        "AWS_SESSION_TOKEN": "s3ss10n",
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_STS": aws.url,
        **more,
    }


def identities(environment: Mapping[str, str], **settings: Any) -> Identities:
    return Identities(_settings.Settings(**{"registry_url": "https://registry.example/v1", **settings}), environment)


@pytest.fixture
def announced(scripted: Start, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Scripted, Registration]]:
    """Announce a server from this environment to a registry that does what a script says."""

    def announce(script: Script, environment: Mapping[str, str], **settings: Any) -> tuple[Scripted, Registration]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        registry = scripted(script)
        handle = Registration(
            Fixed(registration("weather")), _settings.Settings(registry_url=registry.url, **settings), QUICK
        )
        handle.start()
        return registry, handle

    return announce


def sent(registry: Scripted) -> list[str]:
    """As whom each request came, in order."""
    return [asked.headers.get("authorization", "nobody") for asked in registry.asked]


# ------------------------------------------------------------------ which of them


def test_a_token_is_all_that_is_tried_where_there_is_one(announced, aws: Aws, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "mcp_registry_client")
    registry, handle = announced(
        in_turn(REQUIRED, CREATED), on_lambda(aws), token=TOKEN, username="admin", password="password"
    )
    assert handle.wait(10)
    assert sent(registry) == [f"Bearer {TOKEN}"] * 2 and aws.asked == []
    said = "Registered weather in the MCP registry (created), as the token 0123456789ab"
    assert [record.getMessage() for record in caplog.records][-1] == said


def test_on_aws_the_role_comes_before_the_password(announced, aws: Aws, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "mcp_registry_client")
    registry, handle = announced(in_turn(REQUIRED, CREATED), on_lambda(aws), username="admin", password="password")
    assert handle.wait(10)
    assert sent(registry) == [f"Bearer {jwt()}"] * 2
    said = f"Registered weather in the MCP registry (created), as the role {ROLE}"
    assert caplog.records[-1].getMessage() == said
    (form,) = aws.forms
    assert form == {
        "Action": ["GetWebIdentityToken"],
        "Version": ["2011-06-15"],
        "Audience.member.1": [registry.url],
        "SigningAlgorithm": ["RS256"],
        "DurationSeconds": ["300"],
    }


def test_a_registry_that_does_not_know_the_role_is_given_the_password_and_that_is_said(
    announced, aws: Aws, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "mcp_registry_client")

    def by_password(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
        (KNOWN if asked.headers["authorization"].startswith("Basic ") else REFUSED)(handler, asked)

    registry, handle = announced(by_password, on_lambda(aws), username="admin", password="password")
    assert handle.wait(10)
    assert [text.split(" ")[0] for text in sent(registry)] == ["Bearer", "Basic"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith(f"(unchanged), as the user admin; the registry does not take the role {ROLE}")
    assert "password" not in line


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (403, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", "sts:GetWebIdentityToken"),
        (
            400,
            "<Error><Code>OutboundWebIdentityFederationDisabledException</Code></Error>",
            "outbound identity federation switched off",
        ),
        (400, "<Error><Code>Strange.Thing</Code></Error>", "STS answers Strange.Thing"),
        (502, "<html>", "STS answers HTTP 502"),
        (200, "<WebIdentityToken>not a token</WebIdentityToken>", "STS answers HTTP 200"),
    ],
)
def test_where_sts_signs_nothing_the_password_is_used_and_without_one_it_is_said_why(
    aws: Aws, status: int, text: str, said: str
):
    aws.says["POST", "/"] = (status, text)
    both = identities(on_lambda(aws), username="admin", password="password")
    found = both.now(5)
    assert found is not None and found.told == "the user admin"
    assert said in both.passed_over[0]
    alone = identities(on_lambda(aws))
    with pytest.raises(NoIdentity, match=said.replace(".", r"\.")):
        alone.now(5)
    aws.says.clear()
    now = alone.now(5)
    assert now is not None and now[:3] == ("role", f"Bearer {jwt()}", f"the role {ROLE}")
    assert 200 < now.ends - time.monotonic() <= 300


def test_a_server_whose_role_is_signed_for_later_is_announced_then(announced, aws: Aws):
    aws.says["POST", "/"] = (503, "")
    registry, handle = announced(in_turn(REQUIRED, CREATED), on_lambda(aws))
    with handle._changed:
        assert handle._changed.wait_for(lambda: handle.error is not None, 10)
    assert "AWS signs no token for its role: STS answers HTTP 503" in (handle.error or "")
    assert registry.asked == []
    aws.says.clear()
    assert handle.wait(10)


def test_whoever_was_refused_is_tried_again_when_nobody_else_is_left(aws: Aws):
    these = identities(on_lambda(aws), username="admin", password="password")
    kinds: list[str] = []
    for _ in range(4):
        found = these.now(5)
        assert found is not None
        kinds.append(found.kind)
        assert these.refuse(found) == (found.kind == "role")
    assert kinds == ["role", "password", "role", "password"]


def test_a_signed_identity_is_used_until_it_is_about_to_end_and_one_that_may_have_ended_is_got_anew(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
):
    these = identities(on_lambda(aws))
    first = these.now(5)
    assert first is not None and these.now(5) is first and aws.signed == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 245)
    second = these.now(5)
    assert second is not None and second != first and aws.signed == 2
    # Refused half a minute later: this process may have been frozen for longer than it knows.
    monkeypatch.setattr(time, "monotonic", lambda: now + 280)
    assert these.refuse(second)
    third = these.now(5)
    assert third is not None and third != second and not these.refuse(third)


@pytest.mark.parametrize(
    ("environment", "here"),
    [
        ({}, False),
        ({"AWS_ACCESS_KEY_ID": "AKIA", "AWS_REGION": "eu-west-1"}, False),
        ({"AWS_LAMBDA_FUNCTION_NAME": "f"}, True),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x"}, True),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"}, True),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/token"}, True),
    ],
)
def test_a_persons_own_keys_of_aws_are_not_asked_to_sign(
    environment: dict[str, str], here: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(_aws, "VENDOR", tmp_path / "none")
    assert bool(identities(environment)) == here
    assert bool(identities(environment, audience="mcp-registry"))


def test_a_machine_of_ec2_is_known_by_who_made_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(_aws, "VENDOR", tmp_path / "board_vendor")
    _aws.VENDOR.write_text("Amazon EC2\n")
    assert _aws.is_here({})
    _aws.VENDOR.write_bytes(b"\xff\xfe")
    assert not _aws.is_here({})


# ------------------------------------------------------------------ where credentials are


def test_a_container_asks_the_address_that_it_is_given_with_the_token_of_the_file(aws: Aws, tmp_path: Path):
    aws.says["GET", "/v1/credentials"] = (
        200,
        json.dumps({"AccessKeyId": "ASIAPOD", "SecretAccessKey": "k", "Token": "t", "Expiration": "2030"}),
    )
    token = tmp_path / "token"
    token.write_text("p0d-t0ken\n")
    environment = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{aws.url}/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_STS": aws.url,
    }
    assert _aws.signed_identity("https://r", environment, 5).subject == ROLE
    assert aws.asked[0][2]["authorization"] == "p0d-t0ken"
    assert "Credential=ASIAPOD/" in aws.asked[1][2]["authorization"]
    with pytest.raises(_aws.NotSigned, match="cannot be read"):
        _aws.signed_identity("x", {**environment, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path)}, 5)
    aws.says["GET", "/v1/credentials"] = (200, "[]")
    with pytest.raises(_aws.NotSigned, match="gives none"):
        _aws.signed_identity("x", environment, 5)


def test_a_machine_asks_its_own_address_by_its_second_version(aws: Aws, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_aws, "INSTANCE", f"{aws.url}/latest")
    held = json.dumps({"AccessKeyId": "ASIAEC2", "SecretAccessKey": "k", "Token": "t"})
    aws.says |= {
        ("PUT", "/latest/api/token"): (200, "imds"),
        ("GET", "/latest/meta-data/iam/security-credentials/"): (200, "web"),
        ("GET", "/latest/meta-data/iam/security-credentials/web"): (200, held),
        ("GET", "/latest/meta-data/placement/region"): (200, "eu-north-1"),
    }
    assert _aws.signed_identity("x", {"AWS_ENDPOINT_URL": aws.url}, 5).subject == ROLE
    assert {h.get("x-aws-ec2-metadata-token") for m, _, h, _ in aws.asked if m == "GET"} == {"imds"}
    assert "/eu-north-1/sts/aws4_request" in aws.asked[-1][2]["authorization"]
    aws.says["GET", "/latest/meta-data/placement/region"] = (200, "eu/../evil")
    with pytest.raises(_aws.NotSigned, match="AWS_REGION"):
        _aws.signed_identity("x", {"AWS_ENDPOINT_URL": aws.url}, 5)


def test_what_is_kept_elsewhere_is_found_by_botocore(aws: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(_aws, "INSTANCE", f"{aws.url}/none")
    profile = tmp_path / "credentials"
    profile.write_text("[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = k\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    environment = {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": aws.url}
    assert _aws.signed_identity("x", environment, 5).subject == ROLE
    assert "Credential=AKIAFILE/" in aws.asked[-1][2]["authorization"]
    assert "x-amz-security-token" not in aws.asked[-1][2]


@pytest.mark.parametrize("session", ["", "s3ss10n+/="])
def test_the_signature_is_that_of_botocore(session: str):
    url, body, moment = "https://sts.eu-west-1.amazonaws.com/", b"Action=GetWebIdentityToken&A=%2F", 1_900_000_000.0
    ours = _aws.signature_headers(_aws.Credentials("AKIA", "s3cr3t", session), "eu-west-1", url, body, moment)
    request = AWSRequest("POST", url, {"Content-Type": ours["content-type"]}, body)
    signer = botocore.auth.SigV4Auth(Botocore("AKIA", "s3cr3t", session or None), "sts", "eu-west-1")
    stamp = datetime.fromtimestamp(moment, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    request.context["timestamp"] = stamp
    request.headers["X-Amz-Date"] = stamp
    if session:
        request.headers["X-Amz-Security-Token"] = session
    theirs = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert ours["x-amz-date"] == stamp and ours["Authorization"].endswith(f"Signature={theirs}")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "https://sts.eu-west-1.amazonaws.com/"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1/"}, "http://127.0.0.1:1/"),
        ({"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_STS": "http://b"}, "http://b/"),
    ],
)
def test_sts_is_asked_in_the_region(given: dict[str, str], url: str):
    assert _aws._endpoint(given, "eu-west-1") == url
    assert _aws._endpoint({}, "cn-north-1") == "https://sts.cn-north-1.amazonaws.com.cn/"


# ------------------------------------------------------------------ what is not told


def test_nothing_secret_is_in_what_reports_of_errors_show(aws: Aws):
    these = identities(on_lambda(aws), token=None)
    role = these.now(5)
    token = identities({}, token=TOKEN).now(5)
    settings = _settings.Settings("https://r", "admin", "pa55word", token=TOKEN)
    shown = repr(
        (role, token, settings, _aws.Credentials("AKIA", "s3cr3t-key", "s3ss10n"), _aws.Signed("t0k", ROLE, 1))
    )
    for secret in ("pa55word", "s3cr3t", "s3ss10n", "t0k", jwt(), TOKEN):
        assert secret not in shown
    assert "0123456789ab" in shown and ROLE in shown


@pytest.mark.parametrize("token", ["a.b.c", "nothing", jwt(subject=7), jwt("evil\x1b[2J"), jwt("x" * 301), jwt("")])
def test_a_token_that_says_nothing_of_use_is_somebodys_all_the_same(token: str):
    assert _aws._subject(token) == "of this process"


def test_a_server_of_another_team_is_told_of_with_whom_to_ask(announced, caplog: pytest.LogCaptureFixture):
    said = "payments/refunds belongs to the team payments: ask payments@example.com"
    registry, handle = announced(answers(403, {"error": said, "code": "FORBIDDEN"}), {}, token=TOKEN)
    with handle._changed:
        assert handle._changed.wait_for(lambda: handle.state == "failed", 10)
    (line,) = warnings(caplog)
    assert f"{said}. Use credentials of the team that owns it" in line and "it is tried again" in line
    assert TOKEN not in line and len(registry.asked) == 1


def test_credentials_that_others_can_read_on_the_way_are_warned_of_whatever_they_are(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    # The request itself fails by its own deadline: nobody has this name.
    settings = _settings.Settings("http://registry.invalid", token=TOKEN)
    handle = Registration(Fixed(registration("weather")), settings, QUICK._replace(window=0.1))
    caplog.set_level(logging.WARNING)
    handle._warn_of_listeners()
    assert "goes to registry.invalid" not in caplog.text and "go to registry.invalid over plain http" in caplog.text


def test_a_header_that_cannot_be_sent_is_no_request():
    with pytest.raises(_transport.Failed, match="cannot have"):
        _transport.request("PUT", "http://127.0.0.1:9/", deadline_seconds=1, authorization="Bearer a\r\nX: y")


# ------------------------------------------------------------------ another registry than the environment's


SECRET_URL = "https://admin:pa55word@registry.example/v1"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://registry.example", "https://registry.example:8443/v1"])
def test_what_is_one_registrys_alone_goes_to_no_other(url: str):
    given = {"MCP_REGISTRY_URL": SECRET_URL, "MCP_REGISTRY_AUDIENCE": "https://registry.example/v1"}
    other = _settings.at(url, given)
    assert (other.registry_url, other.credentials, other.audience) == (url, None, None)
    variables = {"MCP_REGISTRY_USERNAME": "me", "MCP_REGISTRY_PASSWORD": "x", "MCP_REGISTRY_TOKEN": "t"}
    named = _settings.at(url, given | variables)
    assert (named.credentials, named.token) == (("me", "x"), "t")
    own = _settings.at("https://registry.example/v1", given)
    assert (own.credentials, own.audience) == (("admin", "pa55word"), "https://registry.example/v1")
    assert _settings.at(url, {"MCP_REGISTRY_AUDIENCE": "registry"}).audience == "registry"


def test_the_command_sends_credentials_of_an_address_to_that_address_alone(
    scripted: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MCP_REGISTRY_{name}", raising=False)
    registry = scripted(REFUSED)
    monkeypatch.setenv("MCP_REGISTRY_URL", SECRET_URL)
    options = _options.parse(["whoami", "--registry", registry.url], cli.COMMANDS)
    with pytest.raises(Stopped):
        _options.registry(options).ask("PUT", "/x")
    assert sent(registry) == ["nobody"]
    monkeypatch.setenv("MCP_REGISTRY_URL", registry.url.replace("http://", "http://admin:pa55word@") + "/api")
    with pytest.raises(Stopped):
        _options.registry(options).ask("PUT", "/x")
    assert sent(registry)[-1].startswith("Basic ")
