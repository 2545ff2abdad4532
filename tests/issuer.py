"""Issuers of OpenID Connect tokens on the loopback, played: the Security Token Service of AWS, and GitHub Actions.

`python -m tests.issuer` starts them and prints how they are used. What they answer is what these have documented:
"GetWebIdentityToken" in the AWS STS API Reference and "Understanding token claims" in the IAM User Guide; "OpenID
Connect reference" of GitHub Actions. Keys and signatures are real, and STS verifies who asks. On demand they rotate
keys, are slow or away, or answer as one does who means ill.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

DISCOVERY = "/.well-known/openid-configuration"
JWKS = "/.well-known/jwks.json"
ACCOUNT = "123456789012"
REGION = "eu-west-1"
NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
HASHES: dict[str, hashes.HashAlgorithm] = {
    "RS256": hashes.SHA256(),
    "ES256": hashes.SHA256(),
    "ES384": hashes.SHA384(),
}
CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}
# What SigV4 writes in the header Authorization ("Authenticating requests" in the AWS documentation).
SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([A-Za-z0-9]+)/([0-9]{8})/([a-z0-9-]+)/sts/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)
CLOCK_SECONDS = 300


def encode(data: bytes) -> str:
    """Base64url without padding, as all parts of a token are."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, length: int = 0) -> str:
    """A number as a JWK has it."""
    return encode(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


@cache
def private_key(algorithm: str, serial: int = 0, bits: int = 2_048) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    """A key, made once in a process: one of RSA takes a tenth of a second and more."""
    del serial
    return (
        rsa.generate_private_key(65_537, bits) if algorithm == "RS256" else ec.generate_private_key(CURVES[algorithm])
    )


class Key(NamedTuple):
    """A key of an issuer under its name."""

    kid: str | None
    algorithm: str
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

    @classmethod
    def of(cls, algorithm: str, serial: int = 0, kid: str | None = None) -> Self:
        """A key for an algorithm; one with another number is another key."""
        return cls(kid or f"{algorithm.lower()}-{serial}", algorithm, private_key(algorithm, serial))

    def jwk(self, **fields: Any) -> dict[str, Any]:
        """The public key as a member of a set; a field that is None is left out."""
        public = self.private.public_key().public_numbers()
        if isinstance(public, rsa.RSAPublicNumbers):
            own = {"kty": "RSA", "n": number(public.n), "e": number(public.e)}
        else:
            size = (public.curve.key_size + 7) // 8
            curve = {256: "P-256", 384: "P-384"}[public.curve.key_size]
            own = {"kty": "EC", "crv": curve, "x": number(public.x, size), "y": number(public.y, size)}
        told = {"kid": self.kid, "use": "sig", "alg": self.algorithm, **own, **fields}
        return {name: value for name, value in told.items() if value is not None}

    def pem(self) -> bytes:
        """The public key as text, which a careless verifier takes for the secret of an HMAC."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, form)

    def signature(self, message: bytes, *, der: bool = False) -> bytes:
        """The signature of a message: of an elliptic curve as two numbers, or as DER, which no token has."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(message, padding.PKCS1v15(), HASHES["RS256"])
        kind = {256: "ES256", 384: "ES384"}[self.private.curve.key_size]
        signed = self.private.sign(message, ec.ECDSA(HASHES[kind]))
        if der:
            return signed
        size = (self.private.curve.key_size + 7) // 8
        return b"".join(value.to_bytes(size, "big") for value in decode_dss_signature(signed))


def token(claims: Mapping[str, Any], key: Key, sign: Callable[[bytes], bytes] | None = None, **header: Any) -> str:
    """A signed token. A field of the header that is None is left out."""
    head = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT", **header}
    told = {name: value for name, value in head.items() if value is not None}
    message = f"{encode(json.dumps(told).encode())}.{encode(json.dumps(dict(claims)).encode())}"
    return f"{message}.{encode((sign or key.signature)(message.encode()))}"


class Answer(NamedTuple):
    """What an address answers."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


def as_json(value: Any, status: int = 200) -> Answer:
    """A value as the answer."""
    return Answer(status, json.dumps(value).encode())


class Issuer:
    """One issuer below a path of the server: its keys, the first of which signs, and what it does wrong."""

    def __init__(self, url: str, keys: list[Key]) -> None:
        self.url = url
        self.keys = keys
        # What it answers instead of what is right, by path.
        self.instead: dict[str, Answer] = {}
        # How long it waits before each answer; as an event, so that it ends with the server.
        self.seconds = 0.0
        self.is_away = False
        # The paths that were asked for, and the headers of the last request.
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self._serial = 0

    def rotate(self, *, keep: bool = True) -> None:
        """Sign by a new key from here on. The ones before stay in the set, or do not."""
        self._serial += 1
        new = Key.of(self.keys[0].algorithm, 100 + self._serial)  # none that an issuer begins with
        self.keys = [new, *(self.keys if keep else [])]

    def sign(self, claims: Mapping[str, Any], key: Key | None = None, **header: Any) -> str:
        """A token of this issuer."""
        return token({"iss": self.url, **claims}, key or self.keys[0], **header)

    def answer(self, path: str) -> Answer:
        """What it answers at a path below its own."""
        if path in self.instead:
            return self.instead[path]
        if path == DISCOVERY:
            return as_json(
                {"issuer": self.url, "jwks_uri": self.url + JWKS, "id_token_signing_alg_values_supported": [*HASHES]}
            )
        if path == JWKS:
            return as_json({"keys": [key.jwk() for key in self.keys]})
        return as_json({"message": "Not Found"}, 404)


def aws_claims(role: str, audience: list[str], seconds: int = 300, **session: Any) -> dict[str, Any]:
    """The claims of a token that STS gives to a role, by its ARN; `session`: claims of AWS's own."""
    now = int(time.time())
    own = {"aws_account": role.split(":")[4], "source_region": REGION, **session}
    return {
        "aud": audience[0] if len(audience) == 1 else audience,
        "sub": role,
        "iat": now,
        "exp": now + seconds,
        "jti": str(uuid.uuid4()),
        "https://sts.amazonaws.com/": own,
    }


def github_claims(
    repository: str, audience: str, ref: str = "refs/heads/main", environment: str | None = None, seconds: int = 300
) -> dict[str, Any]:
    """The claims of a token that GitHub gives to a job of a workflow."""
    now = int(time.time())
    owner = repository.partition("/")[0]
    # A colon in the name of an environment is escaped.
    context = f"environment:{environment.replace(':', '%3A')}" if environment else f"ref:{ref}"
    return {
        "jti": str(uuid.uuid4()),
        "sub": f"repo:{repository}:{context}",
        "aud": audience,
        "ref": ref,
        "ref_type": "branch",
        "sha": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
        "repository": repository,
        "repository_id": "74",
        "repository_owner": owner,
        "repository_owner_id": "65",
        "repository_visibility": "private",
        "actor": "octocat",
        "actor_id": "12",
        "workflow": "publish",
        "workflow_ref": f"{repository}/.github/workflows/publish.yml@{ref}",
        "job_workflow_ref": f"{repository}/.github/workflows/publish.yml@{ref}",
        "event_name": "push",
        "head_ref": "",
        "base_ref": "",
        "run_id": "1",
        "run_number": "10",
        "run_attempt": "2",
        "runner_environment": "github-hosted",
        **({"environment": environment} if environment else {}),
        "nbf": now - 5,
        "iat": now,
        "exp": now + seconds,
    }


class Role(NamedTuple):
    """A role of AWS with the credentials that stand for it."""

    arn: str
    access_key_id: str
    secret_access_key: str
    session_token: str = ""

    @classmethod
    def of(cls, name: str) -> Self:
        """A role of the account that is played, with credentials of a session."""
        key = "ASIA" + encode(name.encode()).upper().replace("-", "X").replace("_", "X")[:16].ljust(16, "X")
        return cls(f"arn:aws:iam::{ACCOUNT}:role/{name}", key, f"secret/of/{name}", f"session+of/{name}==")

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a program of AWS finds its credentials."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            **({"AWS_SESSION_TOKEN": self.session_token} if self.session_token else {}),
        }


class Server:
    """Issuers on one port: `aws`, `github`, and more by `issuer`."""

    def __init__(self, port: int = 0) -> None:
        """Listens at once, on a port of the system's choice unless one is given."""
        self._ended = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"played": self}))
        self._http.daemon_threads = True
        self._http.request_queue_size = 128
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self.issuers: dict[str, Issuer] = {}
        self.aws = self.issuer("aws", Key.of("RS256", 1), Key.of("ES384", 1))
        self.github = self.issuer("github", Key.of("RS256", 2))
        self.roles: dict[str, Role] = {}
        # Whether the account has enabled outbound identity federation.
        self.is_enabled = True
        # What a job of GitHub shows to be given a token.
        self.github_token = "ghs_" + uuid.uuid4().hex
        self.github_job: dict[str, Any] = {"repository": "octo-org/octo-repo"}
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._http.shutdown()
        self._http.server_close()

    def issuer(self, name: str, *keys: Key) -> Issuer:
        """A new issuer, below a path of its own."""
        issuer = self.issuers[name] = Issuer(f"{self.url}/{name}", list(keys))
        return issuer

    def role(self, name: str) -> Role:
        """A role that may ask STS for tokens."""
        role = Role.of(name)
        self.roles[role.access_key_id] = role
        return role

    def wait(self, seconds: float) -> None:
        """Wait, unless the server ends before."""
        self._ended.wait(seconds)

    # -------------------------------------------------------------- the services

    def give_github(self, query: Mapping[str, list[str]], authorization: str) -> Answer:
        """A token for the job that is played, as by ACTIONS_ID_TOKEN_REQUEST_URL."""
        if authorization.removeprefix("bearer ").removeprefix("Bearer ") != self.github_token:
            return as_json({"message": "Bad credentials"}, 401)
        owner = self.github_job["repository"].partition("/")[0]
        audience = query.get("audience", [f"https://github.com/{owner}"])[0]
        value = self.github.sign(github_claims(audience=audience, **self.github_job))
        return as_json({"count": len(value), "value": value})

    def give_aws(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer of STS to a request of its Query API."""
        role = self._caller(path, headers, body)
        if isinstance(role, Answer):
            return role
        sent = {name: values[0] for name, values in parse_qs(body.decode("latin-1"), keep_blank_values=True).items()}
        if sent.get("Action") != "GetWebIdentityToken" or sent.get("Version") != "2011-06-15":
            return failure("InvalidAction", "The action or its version is not known here")
        audience = [sent[name] for name in (f"Audience.member.{place}" for place in range(1, 12)) if name in sent]
        algorithm, seconds = sent.get("SigningAlgorithm", ""), sent.get("DurationSeconds", "300")
        if not 1 <= len(audience) <= 10 or not all(1 <= len(text) <= 1_000 for text in audience):
            return failure("ValidationError", "Audience has 1 to 10 members of 1 to 1000 characters")
        if algorithm not in ("RS256", "ES384"):
            return failure("ValidationError", "SigningAlgorithm is RS256 or ES384")
        if not seconds.isdecimal() or not 60 <= int(seconds) <= 3_600:
            return failure("ValidationError", "DurationSeconds is 60 to 3600")
        if not self.is_enabled:
            return failure("OutboundWebIdentityFederationDisabledException", "It is not enabled for this account", 403)
        claims = aws_claims(role.arn, audience, int(seconds))
        key = next(key for key in self.aws.keys if key.algorithm == algorithm)
        expiration = datetime.fromtimestamp(claims["exp"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return xml(
            f'<GetWebIdentityTokenResponse xmlns="{NAMESPACE}">\n  <GetWebIdentityTokenResult>\n'
            f"    <WebIdentityToken>{self.aws.sign(claims, key)}</WebIdentityToken>\n"
            f"    <Expiration>{expiration}</Expiration>\n  </GetWebIdentityTokenResult>\n"
            f"  <ResponseMetadata>\n    <RequestId>{uuid.uuid4()}</RequestId>\n  </ResponseMetadata>\n"
            f"</GetWebIdentityTokenResponse>\n"
        )

    def _caller(self, path: str, headers: Mapping[str, str], body: bytes) -> Role | Answer:
        """The role that has signed a request, or why it is refused. botocore says what the signature has to be."""
        # Here, because where the verifier is fuzzed there is none.
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        told = {name.lower(): value for name, value in headers.items()}
        if "authorization" not in told:
            return failure("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
        found = SIGNED.fullmatch(told["authorization"])
        if found is None:
            return failure("IncompleteSignature", "The request signature does not conform to AWS standards")
        key_id, day, region, signed, signature = found.groups()
        role = self.roles.get(key_id)
        if role is None or told.get("x-amz-security-token", "") != role.session_token:
            return failure("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
        moment = told.get("x-amz-date", "")
        names = signed.split(";")
        needed = {"host", "x-amz-date", *(["x-amz-security-token"] if role.session_token else [])}
        try:
            age = abs(time.time() - datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp())
        except ValueError:
            age = CLOCK_SECONDS
        if age >= CLOCK_SECONDS or moment[:8] != day or not needed <= {*names} or not {*names} <= {*told}:
            return failure("SignatureDoesNotMatch", "Signature expired, or of headers that are not there", 403)
        request = AWSRequest("POST", f"http://{told['host']}{path}", {name: told[name] for name in names}, body)
        request.context["timestamp"] = moment
        signer = SigV4Auth(Credentials(role.access_key_id, role.secret_access_key), "sts", region)
        wanted = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        if wanted != signature:
            return failure("SignatureDoesNotMatch", "The request signature we calculated does not match", 403)
        return role

    def play(self, name: str, word: str) -> Answer:
        """What somebody at the keyboard asks for: rotate, slow, away or well."""
        issuer = self.issuers[name]
        if word == "rotate":
            issuer.rotate()
        issuer.seconds, issuer.is_away = (10.0 if word == "slow" else 0.0), word == "away"
        return as_json({"issuer": issuer.url, "is": word, "keys": [key.kid for key in issuer.keys]})


def xml(text: str, status: int = 200) -> Answer:
    """An answer of the Query API."""
    return Answer(status, text.encode(), (("Content-Type", "text/xml"), ("x-amzn-RequestId", str(uuid.uuid4()))))


def failure(code: str, message: str, status: int = 400) -> Answer:
    """An error of the Query API."""
    return xml(
        f'<ErrorResponse xmlns="{NAMESPACE}">\n  <Error>\n    <Type>Sender</Type>\n    <Code>{code}</Code>\n'
        f"    <Message>{escape(message)}</Message>\n  </Error>\n  <RequestId>{uuid.uuid4()}</RequestId>\n"
        f"</ErrorResponse>\n",
        status,
    )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    played: ClassVar[Server]

    def do_GET(self) -> None:
        """A document of an issuer, or a token of GitHub's."""
        url = urlsplit(self.path)
        _, name, *rest = url.path.split("/")
        issuer = self.played.issuers.get(name)
        if issuer is None:
            self._send(as_json({"message": "Not Found"}, 404))
            return
        if url.path == "/github/token":
            self._send(self.played.give_github(parse_qs(url.query), self.headers.get("Authorization", "")))
            return
        issuer.asked.append("/" + "/".join(rest))
        issuer.headers = dict(self.headers.items())
        if issuer.seconds:
            self.played.wait(issuer.seconds)
        if issuer.is_away:
            self.close_connection = True
            return
        self._send(issuer.answer("/" + "/".join(rest)))

    def do_POST(self) -> None:
        """STS, and what somebody at the keyboard asks for."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        _, first, *rest = self.path.split("/")
        if first == "play" and len(rest) == 2 and rest[0] in self.played.issuers:
            self._send(self.played.play(*rest))
        elif self.path == "/":
            self._send(self.played.give_aws(self.path, dict(self.headers.items()), body))
        else:
            self._send(as_json({"message": "Not Found"}, 404))

    def _send(self, answer: Answer) -> None:
        try:
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
        except OSError:  # who asked has had enough of it
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


def _told(server: Server, role: Role) -> str:
    """How the issuers are used, for somebody at the keyboard."""
    aws = {"issuer": server.aws.url, "audience": "AUDIENCE", "claims": {"sub": role.arn}}
    repository = server.github_job["repository"]
    github = {"issuer": server.github.url, "audience": "AUDIENCE", "claims": {"repository": repository}}
    lines = [
        f"# AWS as {role.arn}: set these where the client runs",
        f"export AWS_ENDPOINT_URL_STS={server.url} AWS_REGION={REGION}",
        *(f"export {name}={value}" for name, value in role.environment.items()),
        "# A job of GitHub Actions",
        f"export ACTIONS_ID_TOKEN_REQUEST_URL='{server.url}/github/token?api-version=2.0'",
        f"export ACTIONS_ID_TOKEN_REQUEST_TOKEN={server.github_token}",
        "# PUT /api/registry/issuers/{id}, with a team and a role; the audience is the registry's URL",
        *(json.dumps({**body, "team": "TEAM", "role": "publisher"}) for body in (aws, github)),
        "# What goes wrong: rotate, slow, away, well",
        f"curl -X POST {server.url}/play/aws/rotate",
    ]
    return "\n".join(lines)


def main() -> None:
    """Serve until somebody ends it."""
    options = argparse.ArgumentParser(prog="python -m tests.issuer", description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--port", type=int, default=0, help="by default one that is free")
    options.add_argument("--role", default="refunds-server", help="the name of the role that AWS gives tokens to")
    options.add_argument("--repository", default="octo-org/octo-repo", help="of the job that GitHub gives tokens to")
    given = options.parse_args()
    with Server(given.port) as server:
        server.github_job["repository"] = given.repository
        print(_told(server, server.role(given.role)), flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
