"""Coverage-guided fuzzing, by Atheris, of what strangers' bytes reach first: the guard, URLs, body intake, and tokens.

What must hold of any bytes: no exception but the registry's own errors; what is accepted can be read again, stored, and
means the same afterwards; the guard opens no closed address; no token is believed that nobody gave. `make test` replays
the corpus and every finding of the past, which needs no Atheris. Longer runs search from there on, in an environment of
their own (requirements/fuzz.txt).

The corpus is text: a line for each input, as a JSON string whose characters are the bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from base64 import b64encode
from binascii import crc32
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mcp_registry.access import issuers, tokens
from mcp_registry.catalogue import canonical, names, registration
from mcp_registry.dial import guard, urls
from mcp_registry.dial.guard import OPEN, Policy
from mcp_registry.edge import intake
from mcp_registry.edge.http import Request
from mcp_registry.errors import RegistryError
from tests.fuzz.guard import bypass, misread, policies
from tests.issuer import Key, Server, encode
from tests.proof import FAR, Line, at_most

ROOT = Path(__file__).parent.parent.parent
CORPUS = Path(__file__).parent / "corpus"
# Inputs that broke a rule once: {"target", "why", "input"} a line.
FINDINGS = CORPUS / "findings.jsonl"
SECONDS = 5  # of searching, for each target, times scale
MAX_INPUT = 4_096
# Of one input. libFuzzer calls it a finding where one takes longer.
PATIENCE_SECONDS = 5


def prove(scale: int) -> list[Line]:
    """Replay what is known; in longer runs search for more, `SECONDS` times `scale`, up to FAR, for each target."""
    lines: list[Line] = []
    for name, check in TARGETS.items():
        inputs = [*corpus(name), *(text for target, _, text in findings() if target == name)]
        broken = [told for told in (_fault(check, data) for data in inputs) if told]
        for told in broken[:3]:
            print(f"{name}: {told}", file=sys.stderr)
        lines.append(at_most(f"fuzz of {name}: faults in {len(inputs)} known inputs", 0, len(broken)))
    if scale > 1:
        lines += [_searched(name, SECONDS * min(scale, FAR)) for name in TARGETS]
    return lines


def corpus(name: str) -> list[bytes]:
    """The inputs of a target."""
    text = (CORPUS / f"{name}.jsonl").read_text(encoding="ascii")
    return [json.loads(line).encode("latin-1") for line in text.splitlines()]


def findings() -> list[tuple[str, str, bytes]]:
    """(target, why, input) of everything that was found in the past."""
    if not FINDINGS.exists():
        return []
    told = [json.loads(line) for line in FINDINGS.read_text(encoding="ascii").splitlines()]
    return [(each["target"], each["why"], each["input"].encode("latin-1")) for each in told]


def _fault(check: Callable[[bytes], None], data: bytes) -> str | None:
    try:
        check(data)
    except Exception as error:
        return f"{type(error).__name__}: {error} by {data[:200]!r}"
    return None


# ------------------------------------------------------------------ what must hold


def check_guard(data: bytes) -> None:
    """A URL, an address and a setting, all of the same text."""
    text = data.decode("utf-8", "replace")
    for policy, opened in policies().values():
        told = bypass(text, policy, opened) or bypass(f"http://{text}", policy, opened) or misread(text, policy, opened)
        assert told is None, f"opens {told}"
    told, policy = _opened(text)
    assert told.startswith(OPEN) == (policy is None) and "\n" not in told
    if policy is not None:
        # Whatever an operator opens, what may never be open is not.
        for address in ("169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "255.255.255.255", "::ffff:a00:1"):
            assert policy.address_fault(address) is not None, f"opens {address}"


def _opened(text: str) -> tuple[str, Policy | None]:
    """The policy of a setting, or what is wrong with that."""
    try:
        return "", Policy.of({OPEN: text})
    except ValueError as error:
        return str(error), None


def check_urls(data: bytes) -> None:
    """A URL of each kind, and a name; two lines are an endpoint and its health URL."""
    text, _, rest = data.decode("utf-8", "replace").partition("\n")
    for fault in (urls.endpoint_fault(text), urls.link_fault(text), urls.repository_fault(text), names.fault(text)):
        assert fault is None or (fault and "\n" not in fault)
    assert names.number_fault(text) is None or names.fault(text) is None or not text.isascii()
    if urls.endpoint_fault(text) is not None:
        return
    # A legal URL has one reading, which survives being written down anew.
    origin = urls.origin(text)
    assert urls.endpoint_fault(origin) is None
    assert (guard.host(origin), guard.port(origin)) == (guard.host(text), guard.port(text))
    assert urls.origin(origin) == origin
    assert json.loads(json.dumps(text)) == text and text.isascii() and text.isprintable()
    if urls.health_fault(rest, text) is None:
        health = origin + rest if rest.startswith("/") else rest
        assert urls.link_fault(health) is None
        assert (guard.host(health), guard.port(health)) == (guard.host(text), guard.port(text))


def check_intake(data: bytes) -> None:
    """A body, as a proxy event brings it: as text where it is some, and in base64."""
    sent = _taken(b64encode(data).decode("ascii"), encoded=True)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        assert isinstance(sent, RegistryError)
        return
    as_text = _taken(text, encoded=False)
    if isinstance(sent, RegistryError):
        assert isinstance(as_text, RegistryError) and str(as_text) == str(sent)
        return
    assert not isinstance(as_text, RegistryError)
    # What was read is JSON that means the same when it is written and read again, in a form that stays.
    plain = canonical.survey(sent).plain
    written = canonical.canonical(sent, plain=plain)
    again = intake.parse(written)
    assert _same(again, sent), "changes by being written"
    assert canonical.canonical(again, plain=canonical.survey(again).plain) == written, "has two canonical forms"
    _check_registration(sent, plain)


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal to who reads numbers as doubles, as RFC 8785 does."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float) and float in (type(one), type(other)):
        return float(one) == float(other)  # 44444444444444444.4 is written as an integer, which is another one
    return type(one) is type(other) and one == other


def _taken(body: str, *, encoded: bool) -> Any:
    """The value of a body, or the error that it is refused with."""
    event = {
        "httpMethod": "POST",
        "resource": "/api/registry/register",
        "requestContext": {"requestId": "fuzz"},
        "headers": {"Content-Type": "application/json"},
        "body": body,
        "isBase64Encoded": encoded,
    }
    try:
        return intake.read_json(Request(event))
    except RegistryError as error:
        return _well(error)


def _check_registration(value: Any, plain: bool) -> None:
    try:
        taken = registration.parse(value)
    except RegistryError as error:
        _well(error)
        return
    document = taken.document
    # As it is stored: text that Postgres takes, JSON that it reads as we do.
    stored = [document.name, document.display_name, document.endpoint_url, document.description]
    stored += [document.version, document.health_url, taken.tools_json, taken.tags_json]
    for text in stored:
        assert text is None or ("\0" not in text and text.encode())
    for text in (taken.tools_json, taken.tags_json or "[]"):
        assert isinstance(intake.parse(text.encode()), list)
    assert urls.endpoint_fault(document.endpoint_url) is None and names.fault(document.name) is None
    assert taken.body_digest == hashlib.sha256(canonical.canonical(value, plain=plain)).digest()
    # A second start of the same server sends the same, and changes nothing.
    again = registration.parse(intake.parse(canonical.canonical(value, plain=plain)))
    assert (again.body_digest, again.offer_digest) == (taken.body_digest, taken.offer_digest)
    # What goes out is accepted when it comes in again, in our own spelling.
    stored_tools = json.loads(taken.tools_json)
    tools = [{**tool.pop("extra", {}), **{k: v for k, v in tool.items() if k != "position"}} for tool in stored_tools]
    assert registration.parse({**value, "tools": tools}).offer_digest == taken.offer_digest


def _well(error: RegistryError) -> RegistryError:
    """The error, if it can be rendered: that is half of what refusing means."""
    for text in (str(error), *(part for fault in error.faults for part in fault)):
        assert text.encode() is not None and len(text) < 1_000
    return error


def check_tokens(data: bytes) -> None:
    """A text as a token of the registry's own; and a token that is made of these bytes."""
    text = data.decode("utf-8", "surrogateescape")
    found = tokens.parse(text)
    if found is not None:
        assert found.text == text and text.isascii() and f"_{found.id}_" in text and text not in repr(found)
    spread = "".join(tokens.DIGITS[byte % 62] for byte in data.ljust(52, b"0")[:52])
    unchecked = f"mcpr_{spread[:12]}_{spread[12:]}"
    token = f"{unchecked}_{_in_base_62(crc32(unchecked.encode()))}"
    assert tokens.parse(token) == (spread[:12], token)
    assert tokens.digest(token) == hashlib.sha256(token.encode()).digest()
    place = len(data) % len(token)
    for other in ("_", "0", "z", "\ud800"):
        changed = token[:place] + other + token[place + 1 :]
        assert changed == token or tokens.parse(changed) is None, "takes what was mistyped"


def _in_base_62(value: int) -> str:
    return "".join(tokens.DIGITS[value // 62**power % 62] for power in range(5, -1, -1))


def check_issuers(data: bytes) -> None:
    """A token, the header and the claims of one, a set of keys, and a pattern with a text, all of these bytes."""
    url, key, verifier = _trusted()
    rules = [issuers.Rule("fuzz", AUDIENCE, {"sub": "*"}, "reader", "default")]
    text = data.decode("latin-1")
    # Whatever it is, it is not signed by a key of the issuer.
    assert _verified(verifier, text, rules) is None, "believes what nobody signed"
    head = json.dumps({"alg": "ES256", "kid": key.kid}).encode()
    claims = json.dumps({"iss": url, "aud": AUDIENCE, "sub": "fuzz", "exp": MOMENT + 60}).encode()
    for header, payload in ((data, claims), (head, data), (head, claims[:-1] + b", " + data + b"}")):
        message = f"{encode(header)}.{encode(payload)}"
        token = f"{message}.{encode(key.signature(message.encode()))}"
        verified = _verified(verifier, token, rules)
        assert _verified(verifier, f"{message}.{encode(bytes(64))}", rules) is None, "believes what nobody signed"
        if verified is None:
            continue
        told, read = json.loads(payload), json.loads(header)
        assert verified.claims == told and read["alg"] == "ES256" and "crit" not in read
        assert told["iss"] == url and told["exp"] + 60 > MOMENT and AUDIENCE in told["aud"]
        assert verified.name.isprintable() and len(verified.name) <= 600 and verified.name.encode()
    try:
        found = issuers.read_keys(json.loads(data))
    except (ValueError, RecursionError, AttributeError, issuers.Unusable):
        found = {}
    assert all(algorithm in issuers.ALGORITHMS for _, algorithm in found)
    pattern, _, rest = text.partition("\n")
    meant = "".join("[^/:]*" if each == "*" else re.escape(each) for each in re.sub(r"\*+", "*", pattern[:20]))
    assert issuers.matches(pattern[:20], rest[:20]) == (re.fullmatch(meant, rest[:20], re.DOTALL) is not None)


MOMENT, AUDIENCE = 1_800_000_000, "https://registry.example"


@cache
def _trusted() -> tuple[str, Key, issuers.Verifier]:
    """An issuer and its key, and a verifier that has fetched that, so that it fetches nothing more."""
    key, verifier = Key.of("ES256"), issuers.Verifier()
    closed, patience = os.environ.get(OPEN), issuers.FETCH_SECONDS
    os.environ[OPEN] = "127.0.0.0/8"
    issuers.FETCH_SECONDS = 60.0  # pyright: ignore - on a busy machine it may take longer than is promised
    try:
        with Server() as server:
            issuer = server.issuer("fuzz", key)
            token = issuer.sign({"aud": AUDIENCE, "sub": "fuzz", "exp": MOMENT + 60})
            rule = issuers.Rule("fuzz", AUDIENCE, {"sub": "fuzz"}, "reader", "default")
            verifier.verify(token, lambda _: [rule], MOMENT)
    finally:
        issuers.FETCH_SECONDS = patience  # pyright: ignore
        del os.environ[OPEN]
        if closed is not None:
            os.environ[OPEN] = closed
    return issuer.url, key, verifier


def _verified(verifier: issuers.Verifier, token: str, rules: list[issuers.Rule]) -> issuers.Verified | None:
    url = _trusted()[0]
    try:
        return verifier.verify(token, lambda issuer: rules if issuer == url else [], MOMENT)
    except issuers.Refused:
        return None


TARGETS: dict[str, Callable[[bytes], None]] = {
    "guard": check_guard,
    "urls": check_urls,
    "intake": check_intake,
    "tokens": check_tokens,
    "issuers": check_issuers,
}
# Pieces that chance alone takes long to find.
DICTIONARIES: dict[str, tuple[str, ...]] = {
    "guard": (
        *("http://", "https://", "127.0.0.1", "0x7f", "0177", "2130706433", "[::1]", "::ffff:", "localhost", "%25"),
        *("169.254.169.254", "@", "\\\\", "%2e", "10.0.0.0/8", "fd00::/8", "64:ff9b::", ".internal", ":8080", "/mcp"),
    ),
    "urls": (
        *("http://", "https://", "git@", "[::1]", ":443", ":80", "%2e%2e", "%00", "xn--", "/../", "?", "#", "\\x0a"),
        *("/health", "io.modelcontextprotocol/", "github.com/"),
    ),
    "intake": (
        *('\\"name\\":', '\\"display_name\\":', '\\"server_type\\":', '\\"mock\\"', '\\"endpoint_url\\":'),
        *('\\"http://127.0.0.1\\"', '\\"tools\\":', '\\"input_schema\\":', '\\"inputSchema\\":', '\\"annotations\\":'),
        *('\\"metadata\\":', '\\"tags\\":', '\\"description\\":', '\\"health_url\\":', "null", "1e400", "NaN", "-0.0"),
        *("1E+22", "18446744073709551616", "\\\\u0000", "\\\\ud800", "\\\\udbff\\\\udfff", "\\xf0\\x9f\\x98\\x80"),
    ),
    "tokens": ("mcpr_", "_", "0123456789AB", "\\xed\\xa0\\x80"),
    "issuers": (
        *('\\"alg\\":', '\\"ES256\\"', '\\"none\\"', '\\"kid\\":', '\\"es256-0\\"', '\\"typ\\":', '\\"crit\\":'),
        *('\\"iss\\":', '\\"aud\\":', '\\"sub\\":', '\\"exp\\":', '\\"nbf\\":', '\\"iat\\":', "1800000060", "1e400"),
        *('\\"keys\\":', '\\"kty\\":', '\\"RSA\\"', '\\"EC\\"', '\\"crv\\":', '\\"P-256\\"', '\\"n\\":', '\\"e\\":'),
        *("\\\\u0000", "\\\\ud800", "*", "/", ":", "."),
    ),
}

# ------------------------------------------------------------------ the search

# Atheris counts the branches of what is imported under its eyes. Without its hooks of str and re: they break on
# patterns that look ahead, and ours do (3.0.0, 2026-11-22).
PROGRAM = """
import sys, atheris
with atheris.instrument_imports(include=["mcp_registry"]):
    from tests.fuzz import coverage
coverage.fuzz(*sys.argv[1:])
"""


class _Run(NamedTuple):
    executions: int
    branches: int
    finding: str | None


def _searched(name: str, seconds: int) -> Line:
    what = f"fuzz of {name} by coverage, {seconds} s"
    try:
        run = _search(name, seconds)
    except RuntimeError as error:
        told = str(error).strip().rpartition("\n")[2][:120]
        return Line(what, "0 findings", f"could not run: {told}", False)
    figure = f"{run.executions} inputs, {run.branches} branches, {int(run.finding is not None)} findings"
    if run.finding is not None:
        print(f"{name}: {run.finding}", file=sys.stderr)
    return Line(what, "0 findings", figure, run.finding is None and run.executions > 0)


def _search(name: str, seconds: int) -> _Run:
    """Fuzz one target for so long, from its corpus on. Raises RuntimeError where that is not possible here."""
    # Here, because what runs in the environment that this makes has no use for it.
    from tests.real import environments

    requirements = ROOT / "requirements" / "fuzz.txt"
    python = environments.make(environments.FOLDER / f"fuzz-{environments.version()}", requirements) / "python"
    with tempfile.TemporaryDirectory(prefix="registry-fuzz-") as folder:
        inputs = Path(folder) / "corpus"
        inputs.mkdir()
        for place, data in enumerate(corpus(name)):
            (inputs / str(place)).write_bytes(data)
        words = Path(folder) / "words"
        words.write_text("".join(f'"{word}"\n' for word in DICTIONARIES[name]), encoding="ascii")
        environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(ROOT / "layers" / "registry")}
        command = [str(python), "-c", PROGRAM, name, str(seconds), folder]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
        found = [*Path(folder).glob("found-*")]
        statistics = dict(re.findall(r"stat::(\w+): +(\d+)", done.stderr))
        if done.returncode and not found:
            raise RuntimeError(done.stderr[-2_000:])
        branches = max([int(each) for each in re.findall(r"cov: (\d+)", done.stderr)], default=0)
        finding = None
        if found:
            reason = next((line for line in done.stderr.splitlines() if "Error" in line), "slow")
            finding = f"{reason} by {found[0].read_bytes()[:500]!r}"
        if keep := os.environ.get("FUZZ_KEEP"):
            _keep(name, inputs, Path(keep))
    return _Run(int(statistics.get("number_of_executed_units", 0)), branches, finding)


def _keep(name: str, inputs: Path, folder: Path) -> None:
    """Add what a run took for new to a folder, for whoever wants to choose from it."""
    for path in inputs.iterdir():
        target = folder / name / hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())


def fuzz(name: str, seconds: str, folder: str) -> None:
    """What runs in the environment with Atheris; ends the process, with a file `found-*` where it found something."""
    import atheris  # pyright: ignore[reportMissingImports]

    options = [
        *(f"-max_total_time={seconds}", f"-max_len={MAX_INPUT}", f"-timeout={PATIENCE_SECONDS}", "-rss_limit_mb=2048"),
        *("-print_final_stats=1", f"-artifact_prefix={folder}/found-", f"-dict={folder}/words", f"{folder}/corpus"),
    ]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()
