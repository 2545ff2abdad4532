"""Shapes: how MCP servers answer over HTTP, one row for each kind, with its source, and what is right to say of it.

Served by one server on the loopback, each shape below a path of its own. The introduction, `introspect` of the client
and the stock clients of the SDKs are asked about the same rows: what the stock clients find is what is right.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from tests.hostile import Farm, Visit

LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
DUAL = (*LEGACY, "2026-07-28")
MODERN = "2026-07-28"
OBJECT = {"type": "object"}
TOOLS = [{"name": "add", "description": "Adds.", "inputSchema": OBJECT}, {"name": "take", "inputSchema": OBJECT}]
JSON, EVENTS, TEXT, HTML = "application/json", "text/event-stream", "text/plain", "text/html"


class Answer(NamedTuple):
    """An answer over HTTP."""

    status: int
    kind: str | None = None
    body: bytes = b""
    headers: tuple[str, ...] = ()


class Shape(NamedTuple):
    """A kind of server. `verdict` and `era` are what an introduction has to find, `source` is where it is taken from.

    `stock` and `client`: whether the stock clients, and the client of the registry, have to find the same. Where they
    need not, design/truth.md says more than a client knows (402, 403, 429, a login page), or the client is more
    generous (it leaves out a tool that is none, and takes any version); or one client of several finds it so.
    """

    source: str
    verdict: str
    answer: Callable[[Visit], Awaitable[None]]
    era: str | None = None
    path: str = "/mcp"
    stock: bool = True
    client: bool = True


# ------------------------------------------------------------------ answers


def jr(status: int, code: int, words: str, **data: Any) -> Answer:
    """A refusal in JSON-RPC."""
    error = {"code": code, "message": words, **({"data": data} if data else {})}
    return Answer(status, JSON, json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode())


def text(status: int, words: str, kind: str | None = TEXT, *headers: str) -> Answer:
    """A refusal in words; `kind` None: without a content type, as of rmcp."""
    return Answer(status, kind, words.encode(), headers)


def doc(status: int, value: object, *headers: str) -> Answer:
    """JSON that is no JSON-RPC."""
    return Answer(status, JSON, json.dumps(value).encode(), headers)


def exception(words: str) -> dict[str, Any]:
    """An exception as the SDK for Java writes it."""
    lines = [{"fileName": f"T{number}.java", "lineNumber": number} for number in range(40)]
    return {"cause": None, "stackTrace": lines, "jsonRpcError": None, "message": words, "localizedMessage": words}


def unsupported(versions: tuple[str, ...]) -> Answer:
    return jr(400, -32022, "Unsupported protocol version", supported=list(versions), requested="x")


def result(visit: Visit, value: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message(visit).get("id"), "result": value}


def message(visit: Visit) -> dict[str, Any]:
    """The JSON-RPC message in a request; empty where there is none."""
    try:
        value = json.loads(visit.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def initialized(visit: Visit, **more: Any) -> dict[str, Any]:
    """What a server answers to `initialize`."""
    version = message(visit).get("params", {}).get("protocolVersion", LEGACY[-1])
    found = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "shape", "version": "1"}}
    return found | more


def discovered(*versions: str, **more: Any) -> dict[str, Any]:
    """What a server answers to `server/discover`."""
    meta = {"io.modelcontextprotocol/serverInfo": {"name": "shape", "version": "1"}}
    found = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public", "supportedVersions": list(versions)}
    return {**found, "capabilities": {"tools": {}}, "_meta": meta, **more}


def listed(visit: Visit) -> dict[str, Any]:
    """The tools, a page for each."""
    place = int((message(visit).get("params") or {}).get("cursor", "0"))
    more = {"nextCursor": str(place + 1)} if place + 1 < len(TOOLS) else {}
    return {"resultType": "complete", "ttlMs": 0, "cacheScope": "public", "tools": TOOLS[place : place + 1], **more}


async def send(visit: Visit, answer: Answer, *headers: str) -> None:
    kind = [f"Content-Type: {answer.kind}"] if answer.kind else []
    body = answer.body if answer.status not in (202, 204) else b""
    if answer.status == 200 and answer.kind == JSON and message(visit).get("id") is not None:
        # Who answers by 200 has read the request; a refusal by another status comes before that.
        body = body.replace(b'"id": null', f'"id": {json.dumps(message(visit)["id"])}'.encode())
    lines = [f"HTTP/1.1 {answer.status} X", *kind, f"Content-Length: {len(body)}", "Connection: close"]
    await visit.send("\r\n".join([*lines, *answer.headers, *headers, "", ""]).encode() + body)


async def reply(visit: Visit, value: dict[str, Any], *headers: str, stream: str | None = None) -> None:
    """Answer by JSON, or in a stream whose event looks like this, with DATA where the message belongs."""
    data = json.dumps(value)
    if stream is None:
        await send(visit, Answer(200, JSON, data.encode()), *headers)
    else:
        await send(visit, Answer(200, EVENTS, stream.replace("DATA", data).encode()), *headers)


EVENT = "event: message\ndata: DATA\n\n"
NOTICE = 'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n\n'
PRIMED = "data: \nid: 0\nretry: 3000\n\ndata: DATA\n\n"

# ------------------------------------------------------------------ servers on an SDK


class Sdk(NamedTuple):
    """How the servers of an SDK refuse. None: they do not refuse, but serve."""

    stateful: bool = True
    unknown: Answer | None = jr(404, -32001, "Session not found")
    missing: Answer | None = jr(400, -32000, "Bad Request: Server not initialized")
    # A method that it does not know: in a session, and at 2026-07-28.
    method: Answer = jr(200, -32601, "Method not found")
    modern_method: Answer = jr(404, -32601, "Method not found")
    garbage: Answer = jr(400, -32700, "Parse error")
    get: Answer | None = jr(405, -32000, "Method not allowed")
    version: Answer | None = None
    versions: tuple[str, ...] = LEGACY
    # Whether the version is looked at before the session.
    version_first: bool = False
    stream: str | None = EVENT
    delete: int = 200
    # Whether any request without a session opens one.
    opens_for_any: bool = False


def opened(sessions: set[str]) -> str:
    """A new session among these."""
    session = str(uuid4())
    sessions.add(session)
    return session


# The sessions that are open, by the name of their shape.
SESSIONS: dict[str, set[str]] = {}


def sdk(name: str, kind: Sdk) -> Callable[[Visit], Awaitable[None]]:
    """A server of this kind, with its sessions."""
    sessions = SESSIONS.setdefault(name, set())

    def answer(visit: Visit) -> Awaitable[None]:
        session = visit.headers.get("mcp-session-id")
        if visit.method == "DELETE":
            sessions.discard(session or "")
            return send(visit, Answer(kind.delete))
        if visit.method != "POST":
            return send(visit, kind.get or text(404, "Not Found"))
        asked = message(visit)
        if not asked:
            return send(visit, kind.garbage)
        method = asked.get("method")
        version = visit.headers.get("mcp-protocol-version")
        refused = kind.version if version and version not in kind.versions else None
        if kind.version_first and refused:
            return send(visit, refused)
        headers: list[str] = []
        if MODERN in kind.versions and version == MODERN and session is None:
            if method == "server/discover":
                return reply(visit, result(visit, discovered(*kind.versions)), stream=kind.stream)
            if method == "tools/list":
                return reply(visit, result(visit, listed(visit)), stream=kind.stream)
            return send(visit, kind.modern_method)
        if method == "initialize":
            if kind.stateful:
                headers.append(f"Mcp-Session-Id: {opened(sessions)}")
            return reply(visit, result(visit, initialized(visit)), *headers, stream=kind.stream)
        if kind.stateful and session is None and kind.missing:
            return send(visit, kind.missing)
        if kind.stateful and session is None and kind.opens_for_any:
            headers.append(f"Mcp-Session-Id: {opened(sessions)}")
        if session is not None and session not in sessions and kind.unknown:
            return send(visit, kind.unknown)
        if refused:
            return send(visit, refused)
        if "id" not in asked:
            return send(visit, Answer(202))
        if method == "tools/list":
            return reply(visit, result(visit, listed(visit)), *headers, stream=kind.stream)
        if method == "ping":
            return reply(visit, result(visit, {}), *headers, stream=kind.stream)
        return send(visit, kind.method, *headers)

    return answer


def over_sse(
    kind: Sdk, *, post: Answer, message_unknown: Answer, gated: Answer | None = None, asks: Sequence[str] = ()
) -> Callable[[Visit], Awaitable[None]]:
    """A server of 2024-11-05: a stream that says where to post to. `post`: what a POST to the stream's path gets.

    `asks`: what it asks for itself before it lists its tools.
    """
    streams: dict[str, Visit] = {}

    async def stream(visit: Visit, path: str) -> None:
        place = str(uuid4())
        streams[place] = visit
        where = f"{path.removesuffix('/sse')}/message?sessionId={place}"
        await visit.send(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        await visit.send(f"event: endpoint\ndata: {where}\n\n".encode())
        await visit.hold()
        streams.pop(place, None)

    async def take(visit: Visit, place: str) -> None:
        asked = message(visit)
        await send(visit, text(202, "Accepted"))
        if waiting := WAITING.get(str(asked.get("id"))):
            waiting.set()
        elif "id" in asked:
            for method in asks if asked["method"] == "tools/list" else ():
                await ask_back(streams[place], method)
            found = {"initialize": initialized, "tools/list": listed}.get(asked["method"])
            value = result(visit, found(visit)) if found else json.loads(kind.method.body) | {"id": asked["id"]}
            await streams[place].send(EVENT.replace("DATA", json.dumps(value)).encode())

    def answer(visit: Visit) -> Awaitable[None]:
        path, _, query = visit.path.partition("?")
        place = query.partition("=")[2]
        if gated:
            return send(visit, gated)
        if visit.method == "GET" and path.endswith("/sse"):
            return stream(visit, path)
        if visit.method != "POST" or path.endswith("/sse"):
            return send(visit, post)
        return take(visit, place) if place in streams else send(visit, message_unknown)

    return answer


CSHARP = "modelcontextprotocol/csharp-sdk src/ModelContextProtocol.AspNetCore/StreamableHttpHandler.cs"
GO = "modelcontextprotocol/go-sdk mcp/streamable.go"
MARK3 = "mark3labs/mcp-go server/streamable_http.go"
RUST = "modelcontextprotocol/rust-sdk crates/rmcp/src/transport/streamable_http_server/tower.rs"
JAVA = "modelcontextprotocol/java-sdk mcp-core .../server/transport/HttpServletStreamableServerTransportProvider.java"
JAVA_STATELESS = "modelcontextprotocol/java-sdk mcp-core .../server/DefaultMcpStatelessServerHandler.java"
KOTLIN = "modelcontextprotocol/kotlin-sdk kotlin-sdk-server .../StreamableHttpServerTransport.kt"
RUBY = "modelcontextprotocol/ruby-sdk lib/mcp/server/transports/streamable_http_transport.rb"
PHP = "modelcontextprotocol/php-sdk src/Server/Transport/StreamableHttpTransport.php"
SWIFT = "modelcontextprotocol/swift-sdk Sources/MCP/Base/Transports/HTTPServer"
PYTHON = "modelcontextprotocol/python-sdk src/mcp/server/streamable_http.py"
NODE = "modelcontextprotocol/typescript-sdk src/server/streamableHttp.ts"

NO_SESSION = jr(404, -32001, "Session not found")
RMCP_MISSING = text(422, "Unexpected message, expect initialize request", None)
RMCP_GARBAGE = text(415, "fail to deserialize request body expected ident at line 1 column 2", None)
RMCP_UNREAD = text(
    415, "fail to deserialize request body data did not match any variant of untagged enum JsonRpcMessage", None
)
GO_METHOD = text(400, 'JSON RPC not handled: "no/such/method" unsupported\n', "text/plain; charset=utf-8")
GO_GARBAGE = text(400, "malformed payload: unmarshaling jsonrpc message\n", "text/plain; charset=utf-8")
GO_VERSION = text(400, "Bad Request: Unsupported protocol version (supported versions: 2025-11-25)\n")
GO_UNKNOWN = text(404, "session not found\n", "text/plain; charset=utf-8")
MARK3_UNKNOWN = text(404, "Invalid session ID\n", "text/plain; charset=utf-8")

# By the name of the SDK and how it is set up: what it does and where that is written.
KINDS: dict[str, tuple[str, Sdk]] = {
    "csharp-2-stateful": (
        f"{CSHARP} 609499b2988e",
        Sdk(
            missing=jr(400, -32000, "A new session can only be created by an initialize request"),
            garbage=jr(400, -32600, "Invalid request"),
            get=jr(400, -32000, "Mcp-Session-Id header is required"),
            version=jr(400, -32000, "The MCP-Protocol-Version header value is not supported"),
            version_first=True,
        ),
    ),
    "csharp-2-stateless": (
        f"{CSHARP} 609499b2988e, the default since 2.0",
        Sdk(
            stateful=False,
            unknown=jr(400, -32000, "The Mcp-Session-Id header is not supported in stateless mode"),
            garbage=jr(400, -32600, "Invalid request"),
            get=text(405, ""),
            versions=DUAL,
            delete=405,
        ),
    ),
    "csharp-1": (
        f"{CSHARP} v1.0.0, v1.4.1; measured, @azure/mcp 2.0.5",
        Sdk(
            missing=jr(400, -32000, "A new session can only be created by an initialize request"),
            garbage=text(500, "", None),
            get=jr(400, -32000, "Mcp-Session-Id header is required"),
            version=jr(400, -32000, "The MCP-Protocol-Version header value is not supported"),
            version_first=True,
        ),
    ),
    "csharp-0": (
        f"{CSHARP} v0.8.0-preview.1 cfa89a390799",
        Sdk(missing=None, opens_for_any=True, garbage=text(500, "", None), get=jr(400, -32000, "No session")),
    ),
    "go-stateful": (
        f"{GO} 3d6450fccf56; measured, kubernetes-mcp-server 0.0.67",
        Sdk(
            unknown=GO_UNKNOWN,
            missing=None,
            opens_for_any=True,
            method=GO_METHOD,
            garbage=GO_GARBAGE,
            get=text(400, "Bad Request: GET requires an Mcp-Session-Id header\n"),
            version=GO_VERSION,
            delete=204,
        ),
    ),
    "go-stateless": (
        f"{GO} 3d6450fccf56; measured, mcp-grafana 2.1.1",
        Sdk(
            stateful=False,
            unknown=None,
            method=GO_METHOD,
            garbage=GO_GARBAGE,
            version=GO_VERSION,
            versions=DUAL,
            get=text(405, "Method Not Allowed\n", TEXT, "Allow: POST"),
            stream=None,
            delete=405,
        ),
    ),
    "go-1.2": (
        f"{GO} v1.2.0 411d5a049ae1",
        Sdk(
            unknown=GO_UNKNOWN,
            method=GO_METHOD,
            garbage=GO_GARBAGE,
            version=GO_VERSION,
            version_first=True,
            missing=None,
            opens_for_any=True,
            get=text(405, "GET requires an active session\n"),
        ),
    ),
    "go-1.4": (
        f"{GO} v1.4.1 580f2a09be5c",
        Sdk(
            unknown=GO_UNKNOWN,
            method=GO_METHOD,
            garbage=GO_GARBAGE,
            version=GO_VERSION,
            version_first=True,
            missing=None,
            opens_for_any=True,
            get=text(400, "Bad Request: GET requires an Mcp-Session-Id header\n"),
        ),
    ),
    "mcp-go-1": (
        f"{MARK3} 56af04b2a9ae",
        Sdk(unknown=MARK3_UNKNOWN, missing=MARK3_UNKNOWN, versions=DUAL, stream=None, get=text(405, "")),
    ),
    "mcp-go-0.44": (
        f"{MARK3} v0.44.0 0510f0cd95df; measured, slack-mcp-server 1.3.0",
        Sdk(unknown=MARK3_UNKNOWN, missing=MARK3_UNKNOWN, stream=None),
    ),
    "mcp-go-0.56": (f"{MARK3} v0.56.0 f6f3485b3bc1", Sdk(unknown=MARK3_UNKNOWN, missing=MARK3_UNKNOWN, stream=None)),
    "mcp-go-0.33": (
        f"{MARK3} v0.33.0 6a54215f5b4c",
        Sdk(unknown=text(400, "Invalid session ID\n"), missing=text(400, "Invalid session ID\n"), stream=None),
    ),
    "mcp-go-0.43": (
        f"{MARK3} v0.40.0 to v0.43.2",
        Sdk(unknown=text(400, "Invalid session ID\n"), missing=text(400, "Invalid session ID\n"), stream=None),
    ),
    "rmcp-3": (
        f"{RUST} rmcp-v3.1.4 4a738b9dd99e; measured, mcp-compressor 0.38.2",
        Sdk(
            unknown=text(404, "Not Found: Session not found", None),
            missing=RMCP_MISSING,
            garbage=RMCP_GARBAGE,
            get=text(400, "Bad Request: Session ID is required", None),
            versions=DUAL,
            stream="data: DATA\n\n",
            version=text(400, "Bad Request: Unsupported MCP-Protocol-Version: x", None),
            delete=202,
        ),
    ),
    "rmcp-1.7": (
        f"{RUST} rmcp-v1.7.0 3529c3675ff6; measured, biomcp 0.9.3",
        Sdk(
            unknown=text(404, "Not Found: Session not found", None),
            missing=RMCP_MISSING,
            garbage=RMCP_GARBAGE,
            get=text(400, "Bad Request: Session ID is required", None),
            stream=PRIMED,
            delete=202,
        ),
    ),
    "rmcp-1.1": (
        f"{RUST} rmcp-v1.1.1 1158cfe1b80b; measured, cortex-mcp 0.9.1",
        Sdk(
            unknown=text(404, "Not Found: Session not found", None),
            missing=RMCP_MISSING,
            garbage=RMCP_GARBAGE,
            get=text(400, "Bad Request: Session ID is required", None),
            versions=LEGACY[:3],
            stream=PRIMED,
            delete=202,
        ),
    ),
    "rmcp-1.7-stateless": (
        f"{RUST} rmcp-v1.7.0 3529c3675ff6, stateless",
        Sdk(
            stateful=False,
            unknown=None,
            garbage=RMCP_GARBAGE,
            get=text(405, "", TEXT, "Allow: POST"),
            delete=405,
            version=text(400, "Bad Request: Unsupported MCP-Protocol-Version: 2026-07-28", None),
        ),
    ),
    "rmcp-0.16": (
        f"{RUST} rmcp-v0.16.0 3df4c5bf5f07",
        Sdk(
            unknown=text(401, "Unauthorized: Session not found", None),
            missing=RMCP_MISSING,
            garbage=RMCP_GARBAGE,
            get=text(401, "Unauthorized: Session ID is required", None),
            stream=PRIMED,
            delete=202,
        ),
    ),
    "rmcp-0.11": (
        f"{RUST} rmcp-v0.11.0 4c87f7f16300",
        Sdk(
            unknown=text(401, "Unauthorized: Session not found", None),
            missing=RMCP_MISSING,
            method=RMCP_UNREAD,
            garbage=RMCP_GARBAGE,
            get=text(401, "Unauthorized: Session ID is required", None),
            stream="data: DATA\n\n",
        ),
    ),
    "rmcp-0.8-stateless": (
        f"{RUST} rmcp-v0.8.5 941300acbe36; measured, es-mcp 0.2.2",
        Sdk(
            stateful=False,
            unknown=None,
            method=RMCP_UNREAD,
            garbage=RMCP_GARBAGE,
            stream="data: DATA\n\n",
            delete=401,
            get=text(401, "Unauthorized: Session ID is required", None),
        ),
    ),
    "java-2": (
        f"{JAVA} 305e4cbd03a5",
        Sdk(
            unknown=doc(404, exception("Session not found: x")),
            missing=doc(400, exception("Session ID required in mcp-session-id header")),
            garbage=doc(400, exception("Invalid message format: x")),
            get=doc(400, exception("Session ID required in mcp-session-id header")),
        ),
    ),
    "java-2.0.1-stateless": (
        f"{JAVA_STATELESS} v2.0.1 c7e1cfe90edc",
        Sdk(
            stateful=False,
            unknown=None,
            garbage=doc(400, exception("Invalid message format")),
            get=text(405, ""),
            stream=None,
            delete=405,
        ),
    ),
    "java-2.0.0-stateless": (
        f"{JAVA_STATELESS} v2.0.0 f56d03840947",
        Sdk(
            stateful=False,
            unknown=None,
            garbage=doc(400, exception("Invalid message format")),
            get=text(405, ""),
            method=doc(500, exception("Missing handler for request type: server/discover")),
            stream=None,
            delete=405,
        ),
    ),
    "kotlin": (
        f"{KOTLIN} a06d699d6c9d",
        Sdk(
            unknown=jr(404, -32000, "Session not found"),
            get=jr(400, -32000, "No valid session ID provided"),
            version=jr(400, -32000, "Bad Request: Unsupported protocol version (x)"),
        ),
    ),
    "kotlin-stateless": (
        f"{KOTLIN} a06d699d6c9d, stateless",
        Sdk(
            stateful=False,
            unknown=None,
            stream=None,
            delete=405,
            version=jr(400, -32000, "Bad Request: Unsupported protocol version (x)"),
        ),
    ),
    "ruby-1.3": (
        f"{RUBY} v1.3.0 fcb1ac935da2",
        Sdk(
            unknown=jr(404, -32600, "Session not found"),
            missing=jr(400, -32600, "Missing session ID"),
            get=jr(400, -32600, "Missing session ID"),
            version=unsupported(DUAL),
            versions=DUAL,
            stream=None,
        ),
    ),
    "ruby-1.3-stateless": (
        f"{RUBY} v1.3.0 fcb1ac935da2, stateless",
        Sdk(stateful=False, unknown=None, version=unsupported(DUAL), versions=DUAL, stream=None),
    ),
    "ruby-0.8": (
        f"{RUBY} v0.8.0 7cede9c5fd03",
        Sdk(
            unknown=doc(404, {"error": "Session not found"}),
            missing=doc(400, {"error": "Missing session ID"}),
            get=doc(400, {"error": "Missing session ID"}),
            stream=None,
        ),
    ),
    "php-0.7": (
        f"{PHP} v0.7.1 c882401ee7a3",
        Sdk(
            unknown=jr(404, -32600, "Session not found or has expired."),
            stream=None,
            versions=DUAL,
            missing=jr(400, -32600, "A valid session id is REQUIRED"),
            garbage=jr(200, -32700, "Syntax error"),
            get=text(405, "", TEXT, "Allow: POST, DELETE, OPTIONS"),
            version=unsupported(DUAL),
            version_first=True,
        ),
    ),
    "php-0.6": (
        f"{PHP} v0.6.0 433c84b58af3",
        Sdk(
            unknown=text(500, ""),
            missing=jr(400, -32600, "A valid session id is REQUIRED"),
            version_first=True,
            garbage=jr(200, -32700, "Syntax error"),
            version=jr(400, -32602, "Unsupported version"),
            stream=None,
        ),
    ),
    "php-0.5": (
        f"{PHP} v0.5.0 fb2c8c2ee4ab",
        Sdk(
            unknown=text(500, "<b>Fatal error</b>", HTML),
            missing=jr(400, -32600, "A valid session id is REQUIRED"),
            garbage=jr(200, -32700, "Syntax error"),
            stream=None,
        ),
    ),
    "swift": (
        f"{SWIFT} 6132fd4b5b42",
        Sdk(
            unknown=jr(404, -32600, "Not Found: Invalid or expired session ID"),
            missing=jr(400, -32600, "Bad Request: Session not initialized"),
            version_first=True,
            version=jr(400, -32600, "Bad Request: Unsupported protocol version"),
        ),
    ),
    "swift-stateless": (
        f"{SWIFT} 6132fd4b5b42, stateless",
        Sdk(
            stateful=False,
            unknown=None,
            stream=None,
            get=jr(405, -32600, "Method not allowed"),
            delete=405,
            version=jr(400, -32600, "Bad Request: Unsupported protocol version"),
        ),
    ),
    "toolbox-1.12": (
        "googleapis/mcp-toolbox internal/server/mcp.go 1.12.0; measured",
        Sdk(
            stateful=False,
            unknown=None,
            method=jr(404, -32601, "invalid method"),
            versions=DUAL,
            stream=None,
            garbage=jr(200, -32700, "invalid character"),
            version=unsupported(DUAL),
            get=doc(405, {"status": "Method Not Allowed", "error": "toolbox does not support streaming"}),
        ),
    ),
    "toolbox-0.28": (
        "googleapis/mcp-toolbox internal/server/mcp.go 0.28.0; measured",
        Sdk(
            stateful=False,
            unknown=None,
            stream=None,
            garbage=jr(200, -32700, "invalid character"),
            version=doc(400, {"status": "Bad Request", "error": "invalid protocol version: 2026-07-28"}),
            get=doc(405, {"status": "Method Not Allowed", "error": "toolbox does not support streaming"}),
        ),
    ),
    "python-1.8": (
        f"{PYTHON} 1.8 to 1.25, read in 1.22.0",
        Sdk(
            unknown=text(400, "Bad Request: No valid session ID provided"),
            missing=None,
            opens_for_any=True,
            method=jr(200, -32602, "Invalid request parameters"),
        ),
    ),
    "python-1.30": (
        f"{PYTHON} 1.30.0; measured",
        Sdk(
            missing=jr(400, -32600, "Bad Request: Missing session ID"),
            get=jr(400, -32600, "Missing session ID"),
            method=jr(200, -32602, "Invalid request parameters"),
            version=jr(400, -32600, "Bad Request: Unsupported protocol version: x"),
        ),
    ),
    "python-1.30-stateless": (
        f"{PYTHON} 1.30.0, stateless; measured",
        Sdk(
            stateful=False,
            unknown=None,
            stream=None,
            method=jr(200, -32602, "Invalid request parameters"),
            version=jr(400, -32600, "Bad Request: Unsupported protocol version: x"),
        ),
    ),
    "python-2.3": (f"{PYTHON} 68fc9ca7ce39, 2.3.0; measured", Sdk(versions=DUAL)),
    "typescript-1.32": (
        f"{NODE} 1.32.2, server/webStandardStreamableHttp.js of the package",
        Sdk(
            missing=jr(400, -32000, "Bad Request: Mcp-Session-Id header is required"),
            get=jr(400, -32000, "Bad Request: Mcp-Session-Id header is required"),
            version=jr(400, -32000, "Bad Request: Unsupported protocol version: x (supported versions: 2025-11-25)"),
        ),
    ),
    "typescript-1-stateless": (
        f"{NODE} 21b58641cf28, stateless",
        Sdk(stateful=False, unknown=None, version=jr(400, -32000, "Bad Request: Unsupported protocol version")),
    ),
    "typescript-1-express": (
        "modelcontextprotocol/typescript-sdk src/examples/server/simpleStreamableHttp.ts 21b58641cf28",
        Sdk(
            unknown=jr(400, -32000, "Bad Request: No valid session ID provided"),
            missing=jr(400, -32000, "Bad Request: No valid session ID provided"),
            get=text(400, "Invalid or missing session ID", HTML),
        ),
    ),
    "express-by-hand": (
        "corpus/pulse 01, like-express",
        Sdk(unknown=doc(400, {"error": "Invalid or missing session ID"}), stream=None, get=text(404, "Cannot GET")),
    ),
    "helidon": ("corpus/pulse 01, like-helidon", Sdk(unknown=doc(404, {"jsonrpc": "2.0", "id": 1}), get=text(404, ""))),
    "json-rpc-in-500": (
        "corpus/pulse 02, json-rpc-in-500",
        Sdk(stateful=False, method=jr(500, -32603, "Internal error"), stream=None),
    ),
}
SSE_KINDS = {
    "go-sse": (
        "modelcontextprotocol/go-sdk mcp/sse.go 3d6450fccf56",
        text(400, "sessionid must be provided"),
        GO_UNKNOWN,
    ),
    "mcp-go-sse": (
        "mark3labs/mcp-go server/sse.go; measured, slack-mcp-server -t sse",
        text(405, "Method not allowed\n"),
        jr(400, -32602, "Invalid session ID"),
    ),
    "java-sse": (
        "modelcontextprotocol/java-sdk HttpServletSseServerTransportProvider.java 305e4cbd03a5",
        text(404, ""),
        doc(404, exception("Session not found: x")),
    ),
    "kotlin-sse": (
        "modelcontextprotocol/kotlin-sdk KtorServer.kt a06d699d6c9d",
        text(405, ""),
        text(404, "Session not found"),
    ),
    "python-sse": (
        "modelcontextprotocol/python-sdk src/mcp/server/sse.py; measured",
        text(405, "Method Not Allowed"),
        text(404, ""),
    ),
}

# ------------------------------------------------------------------ what is no SDK's


def fixed(answer: Answer) -> Callable[[Visit], Awaitable[None]]:
    """The same to everybody."""

    async def same(visit: Visit) -> None:
        await send(visit, answer)

    return same


def hand(
    *,
    initialize: Callable[[Visit], Awaitable[None]] | None = None,
    discover: Callable[[Visit], Awaitable[None]] | None = None,
    tools: Callable[[Visit], Awaitable[None]] | None = None,
    notification: Answer | None = None,
    get: Callable[[Visit], Awaitable[None]] | None = None,
    other: Answer | None = None,
    session: bool = False,
    **more: Any,
) -> Callable[[Visit], Awaitable[None]]:
    """A server of a few lines, of which a test may change any. `more` goes into its answer to `initialize`."""

    async def begin(visit: Visit) -> None:
        headers = ("Mcp-Session-Id: one",) if session else ()
        await reply(visit, result(visit, initialized(visit, **more)), *headers)

    async def show(visit: Visit) -> None:
        await reply(visit, result(visit, listed(visit)))

    async def answer(visit: Visit) -> None:
        asked = message(visit)
        if "method" not in asked and (waiting := WAITING.get(str(asked.get("id")))):
            waiting.set()
            await send(visit, Answer(202))
            return
        method = asked.get("method", visit.method)
        known = {
            "initialize": initialize or begin,
            "server/discover": discover,
            "tools/list": tools or show,
            "GET": get,
        }
        if found := known.get(method):
            await found(visit)
        elif visit.method != "POST":
            await send(visit, text(405, "Method Not Allowed"))
        elif "id" not in asked:
            await send(visit, notification or Answer(202))
        else:
            await send(visit, other or jr(200, -32601, "Method not found"))

    return answer


def says(value: Callable[[Visit], dict[str, Any]], **more: Any) -> Callable[[Visit], Awaitable[None]]:
    """An answer whose result is this."""

    async def answer(visit: Visit) -> None:
        await reply(visit, result(visit, value(visit)), **more)

    return answer


def gives(make: Callable[[Visit], Answer]) -> Callable[[Visit], Awaitable[None]]:
    """An answer of whatever form."""

    async def answer(visit: Visit) -> None:
        await send(visit, make(visit))

    return answer


def as_json(visit: Visit) -> bytes:
    return json.dumps(result(visit, initialized(visit))).encode()


def modern_only(*versions: str, initialize: Answer | None = None, **more: Any) -> Callable[[Visit], Awaitable[None]]:
    """A server that knows no `initialize`."""
    refusal = initialize or unsupported(versions)
    found = more.pop("tools", None)
    return hand(
        initialize=fixed(refusal),
        discover=says(lambda _: discovered(*versions, **more)),
        tools=found,
        other=jr(404, -32601, "Method not found"),
    )


# Those who wait for the answer to a request of theirs, by its id.
WAITING: dict[str, asyncio.Event] = {}


def asking(
    value: Callable[[Visit], dict[str, Any]], *methods: str, event: str = EVENT
) -> Callable[[Visit], Awaitable[None]]:
    """An answer by a stream in which the server itself asks for something first, and waits for each answer."""

    async def answer(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for method in methods:
            await ask_back(visit, method)
        await visit.send(event.replace("DATA", json.dumps(result(visit, value(visit)))).encode())

    return answer


async def ask_back(stream: Visit, method: str) -> None:
    """Ask whoever reads a stream for something, and wait for the answer, which comes by another request."""
    name = str(uuid4())
    answered = WAITING[name] = asyncio.Event()
    asked = {"jsonrpc": "2.0", "id": name, "method": method}
    await stream.send(EVENT.replace("DATA", json.dumps(asked)).encode())
    await answered.wait()
    WAITING.pop(name, None)


async def hold(visit: Visit) -> None:
    await visit.hold()


def where(header: str, value: str, refusal: Answer) -> Callable[[Visit], Awaitable[None]]:
    """A server that answers a POST whose header has this in it, and refuses any other."""
    serve = hand()

    async def answer(visit: Visit) -> None:
        has = visit.method != "POST" or value in visit.headers.get(header, "")
        await (serve(visit) if has else send(visit, refusal))

    return answer


def moved(times: int) -> Callable[[Visit], Awaitable[None]]:
    """A server behind so many redirects."""
    serve = hand()

    async def answer(visit: Visit) -> None:
        base, _, done = visit.path.partition("/mcp")
        place = int(done.strip("/") or 0)
        if place < times:
            await send(visit, text(307, "", TEXT, f"Location: {base}/mcp/{place + 1}"))
        else:
            await serve(visit)

    return answer


# How many redirects are before these. `mcp` follows 20, the TypeScript SDK five.
MOVED = {"moved-twice": 2, "moved-twenty-times": 20}


async def drop(visit: Visit) -> None:
    visit.reset()


CHALLENGE = 'WWW-Authenticate: Bearer realm="tools", scope="read write", resource_metadata="%s"'
PARKED = text(200, "<!doctype html><title>This domain is for sale</title>", HTML)

BY_HAND: dict[str, Shape] = {
    # ---- up
    "modern-only": Shape("docs/decisions/0009", "up", modern_only(MODERN), "modern"),
    "modern-only-in-words": Shape(
        "python-sdk 2.3.0 by a proxy", "up", modern_only(MODERN, initialize=text(400, "no")), "modern"
    ),
    "modern-only-500": Shape("docs/decisions/0009", "up", modern_only(MODERN, initialize=text(500, "")), "modern"),
    "modern-only-404": Shape("docs/decisions/0009", "up", modern_only(MODERN, initialize=text(404, "")), "modern"),
    "discover-drops": Shape("corpus/pulse 02", "up", hand(discover=drop), "legacy"),
    "discover-hangs": Shape("corpus/pulse 02", "up", hand(discover=hold), "legacy", stock=False),
    "notification-500": Shape("by hand", "up", hand(notification=text(500, "")), "legacy"),
    "notification-200": Shape("by hand", "up", hand(notification=doc(200, {})), "legacy"),
    "no-capabilities-no-tools": Shape(
        "by hand", "up", hand(tools=fixed(jr(200, -32601, "Method not found")), capabilities={}), "legacy", stock=False
    ),
    "id-as-text": Shape(
        "by hand",
        "up",
        hand(
            initialize=gives(
                lambda v: Answer(
                    200, JSON, json.dumps(result(v, initialized(v)) | {"id": str(message(v)["id"])}).encode()
                )
            )
        ),
        "legacy",
    ),
    "charset": Shape(
        "csharp-sdk 1.0.0, measured",
        "up",
        hand(initialize=gives(lambda v: Answer(200, "application/json; charset=utf-8", as_json(v)))),
        "legacy",
    ),
    "json-of-another-kind": Shape(
        "python-sdk 1.30.0 src/mcp/client/streamable_http.py reads whatever begins so",
        "up",
        hand(initialize=gives(lambda v: Answer(200, "application/json-rpc", as_json(v)))),
        "legacy",
        stock=False,
    ),
    "status-201": Shape("by hand", "up", hand(initialize=gives(lambda v: Answer(201, JSON, as_json(v)))), "legacy"),
    "packed": Shape(
        "by hand",
        "up",
        hand(initialize=gives(lambda v: Answer(200, JSON, gzip.compress(as_json(v)), ("Content-Encoding: gzip",)))),
        "legacy",
    ),
    "packed-without-a-head": Shape(
        "RFC 9110, section 8.4.1.2, note",
        "up",
        hand(
            initialize=gives(
                lambda v: Answer(200, JSON, zlib.compress(as_json(v))[2:-4], ("Content-Encoding: deflate",))
            )
        ),
        "legacy",
    ),
    "wants-packed": Shape("by hand", "up", where("accept-encoding", "gzip, deflate", text(406, "gzip")), "legacy"),
    "wants-kept-connections": Shape("by hand", "up", where("connection", "keep-alive", text(400, "close")), "legacy"),
    **{name: Shape("by hand", "up", moved(times), "legacy") for name, times in MOVED.items()},
    "moved-too-often": Shape("by hand", "down", moved(21)),
    "primed-stream": Shape(
        "rust-sdk rmcp-v1.7.0 3529c3675ff6", "up", hand(initialize=says(initialized, stream=PRIMED)), "legacy"
    ),
    "stream-with-notifications": Shape(
        "python-sdk 1.30.0",
        "up",
        hand(
            initialize=says(
                initialized,
                stream=NOTICE + EVENT,
            )
        ),
        "legacy",
    ),
    "session-by-hand": Shape("by hand", "up", hand(session=True), "legacy"),
    "null-cursor": Shape("by hand", "up", hand(tools=says(lambda _: {"tools": TOOLS, "nextCursor": None})), "legacy"),
    "tool-null-fields": Shape(
        "by hand",
        "up",
        hand(tools=says(lambda _: {"tools": [{"name": "a", "description": None, "inputSchema": OBJECT}]})),
        "legacy",
    ),
    # A server may ask as well; the SDKs' clients answer a ping, and that they know nothing else.
    "asks-ping-to-begin": Shape("spec 2025-11-25, ping", "up", hand(initialize=asking(initialized, "ping")), "legacy"),
    "asks-ping": Shape("spec 2025-11-25, ping", "up", hand(tools=asking(listed, "ping", "ping", "ping")), "legacy"),
    "asks-for-roots": Shape("spec 2025-11-25, roots", "up", hand(tools=asking(listed, "roots/list")), "legacy"),
    "asks-for-what-nobody-knows": Shape("by hand", "up", hand(tools=asking(listed, "no/such/method")), "legacy"),
    "asks-ping-in-a-session": Shape(
        "spec 2025-11-25, ping", "up", hand(tools=asking(listed, "ping"), session=True), "legacy"
    ),
    "sse-asks-ping": Shape(
        "spec 2024-11-05, ping",
        "up",
        over_sse(Sdk(), post=text(405, ""), message_unknown=text(404, ""), asks=("ping",)),
        "sse",
        path="/sse",
    ),
    "old-version": Shape("by hand", "up", hand(protocolVersion="2024-11-05"), "legacy"),
    # ---- down
    "future-version": Shape("by hand", "down", hand(protocolVersion="2031-01-01"), client=False),
    "version-as-list": Shape("by hand", "down", hand(protocolVersion=["2025-06-18"])),
    "no-server-info": Shape("by hand", "down", hand(serverInfo=None), client=False),
    "no-server-version": Shape("by hand", "down", hand(serverInfo={"name": "x"}), client=False),
    "no-capabilities": Shape("by hand", "down", hand(capabilities=None), client=False),
    "capability-true": Shape("by hand", "down", hand(capabilities={"tools": True}), client=False),
    "wrong-id": Shape(
        "by hand",
        "down",
        hand(
            initialize=gives(lambda v: Answer(200, JSON, json.dumps(result(v, initialized(v)) | {"id": 99}).encode()))
        ),
    ),
    "json-as-text": Shape(
        "by hand", "down", hand(initialize=gives(lambda v: Answer(200, TEXT, as_json(v)))), client=False
    ),
    "json-as-nothing": Shape(
        "by hand", "down", hand(initialize=gives(lambda v: Answer(200, None, as_json(v)))), client=False
    ),
    "accepted": Shape("by hand", "down", hand(initialize=fixed(Answer(202)))),
    "tool-without-schema": Shape(
        "by hand", "down", hand(tools=says(lambda _: {"tools": [{"name": "a"}]})), client=False
    ),
    "tools-are-an-object": Shape("by hand", "down", hand(tools=says(lambda _: {"tools": {}}))),
    "tools-fail": Shape("by hand", "down", hand(tools=fixed(jr(200, -32603, "Database is gone")))),
    "tools-500": Shape("by hand", "down", hand(tools=fixed(text(500, "oops")))),
    "initialize-fails": Shape("by hand", "down", hand(initialize=fixed(jr(200, -32603, "Internal error")))),
    "child-is-gone": Shape(
        "dcc-mcp-server 0.20.49 translate, its child ended; measured",
        "down",
        fixed(jr(500, -32603, "Bridge error: transport desync: no response for request")),
    ),
    "modern-of-tomorrow": Shape("by hand", "down", modern_only("2031-01-01")),
    "parked-domain": Shape("corpus/pulse 03", "down", fixed(PARKED)),
    "single-page-app": Shape(
        "corpus/pulse 03", "down", gives(lambda v: PARKED._replace(status=200 if v.method == "GET" else 405))
    ),
    "json-that-is-none": Shape("by hand", "down", fixed(doc(200, {"status": "ok"}))),
    "not-found": Shape("by hand", "down", fixed(text(404, "404 page not found\n"))),
    "bad-gateway": Shape("by hand", "down", fixed(text(502, "<h1>Bad Gateway</h1>", HTML))),
    "unavailable": Shape("by hand", "down", fixed(text(503, "", TEXT, "Retry-After: 30"))),
    "no-route": Shape(
        "corpus/pulse 04",
        "down",
        fixed(
            doc(
                403,
                {"message": "Missing Authentication Token"},
                "x-amzn-ErrorType: MissingAuthenticationTokenException",
            )
        ),
        client=False,
    ),
    "firewall-page": Shape(
        "corpus/pulse 04", "down", fixed(text(403, "<title>Access denied</title>", HTML)), client=False
    ),
    "moved-elsewhere": Shape("by hand", "down", fixed(text(302, "", TEXT, "Location: https://other.example/mcp"))),
    "drops": Shape("by hand", "down", drop),
    # ---- gated: by the words of design/truth.md where a stock client knows 401 alone
    "challenge": Shape(
        "RFC 6750", "gated", fixed(doc(401, {"error": "invalid_token"}, CHALLENGE % "https://x.invalid/m"))
    ),
    "bare-401": Shape("by hand", "gated", fixed(text(401, "Unauthorized"))),
    "401-that-speaks-of-a-session": Shape("by hand", "gated", fixed(text(401, "Unauthorized: invalid session ID"))),
    "401-for-tools": Shape(
        "by hand", "gated", hand(tools=fixed(doc(401, {"error": "no"}, "WWW-Authenticate: Bearer")))
    ),
    "key-401": Shape("by hand", "gated", fixed(doc(401, {"message": "Missing X-API-Key header"}))),
    "403-with-challenge": Shape(
        "RFC 6750",
        "gated",
        fixed(text(403, "", TEXT, 'WWW-Authenticate: Bearer error="insufficient_scope"')),
        stock=False,
    ),
    "403-json-rpc": Shape("design/truth.md", "gated", fixed(jr(403, -32001, "Forbidden")), stock=False),
    "402": Shape(
        "corpus/pulse 05", "gated", fixed(doc(402, {"x402Version": 1, "accepts": []})), stock=False, client=False
    ),
    "login-elsewhere": Shape(
        "corpus/pulse 05",
        "gated",
        fixed(text(302, "", TEXT, "Location: https://login.example.com/authorize")),
        stock=False,
        client=False,
    ),
    "login-here": Shape(
        "devise (Ruby)", "gated", fixed(text(302, "", TEXT, "Location: /users/sign_in")), stock=False, client=False
    ),
    "login-in-words-alone": Shape(
        "by hand", "down", fixed(text(302, "", TEXT, "Location: https://www.example.com/authors?from=/login"))
    ),
    "moved-to-a-host-of-logins": Shape(
        "by hand", "down", fixed(text(301, "", TEXT, "Location: https://auth.example.com/oauth/mcp"))
    ),
    "sse-gated": Shape(
        "by hand",
        "gated",
        over_sse(Sdk(), post=text(405, ""), message_unknown=text(404, ""), gated=text(401, "")),
        path="/sse",
    ),
    # ---- limited
    "429": Shape(
        "corpus/pulse 05",
        "limited",
        fixed(doc(429, {"error": "slow down"}, "Retry-After: 60")),
        stock=False,
        client=False,
    ),
    "429-for-tools": Shape("by hand", "limited", hand(tools=fixed(text(429, ""))), stock=False, client=False),
}

# ------------------------------------------------------------------ parts of wrong kinds

# By a name: of the answer to which question a part is set to which value (None: null; MISSING: it is left out), and
# whether a stock client reads that.
MISSING = object()
# Where `introspect` of the client has no version or no list either. Else it takes what it can.
REFUSED_BY_ALL = {
    *("version-number", "version-missing", "tools-missing", "tools-null", "cursor-number", "modern-versions-text"),
}
KIND_SOURCE = "measured: mcp 1.30 and 2.3, TypeScript SDK 1.32 and 2.4"
PARTS: dict[str, tuple[str, str, object, str]] = {
    # ---- initialize
    "version-number": ("initialize", "protocolVersion", 20251125, "down"),
    "version-missing": ("initialize", "protocolVersion", MISSING, "down"),
    "server-info-text": ("initialize", "serverInfo", "shape", "down"),
    "server-name-number": ("initialize", "serverInfo.name", 7, "down"),
    "server-name-missing": ("initialize", "serverInfo.name", MISSING, "down"),
    "server-version-number": ("initialize", "serverInfo.version", 1.2, "down"),
    "server-title-number": ("initialize", "serverInfo.title", 7, "down"),
    "server-title-null": ("initialize", "serverInfo.title", None, "up"),
    "server-description-number": ("initialize", "serverInfo.description", 7, "up"),
    "server-website-object": ("initialize", "serverInfo.websiteUrl", {}, "down"),
    "server-icons-text": ("initialize", "serverInfo.icons", "icon.png", "down"),
    "server-icon-without-source": ("initialize", "serverInfo.icons", [{}], "down"),
    "capabilities-list": ("initialize", "capabilities", [], "down"),
    "capability-list": ("initialize", "capabilities.tools", [], "down"),
    "capability-null": ("initialize", "capabilities.tools", None, "up"),
    "list-changed-word": ("initialize", "capabilities.tools.listChanged", "maybe", "down"),
    "list-changed-text": ("initialize", "capabilities.tools.listChanged", "true", "up"),
    "subscribe-list": ("initialize", "capabilities.resources.subscribe", [], "down"),
    "logging-true": ("initialize", "capabilities.logging", True, "down"),
    "logging-list": ("initialize", "capabilities.logging", [], "up"),
    "experimental-list": ("initialize", "capabilities.experimental", [], "down"),
    "experimental-flag": ("initialize", "capabilities.experimental.x", True, "down"),
    "extensions-list": ("initialize", "capabilities.extensions", [], "up"),
    "tasks-true": ("initialize", "capabilities.tasks", True, "down"),
    "instructions-list": ("initialize", "instructions", ["Add."], "down"),
    "meta-list": ("initialize", "_meta", [], "down"),
    # ---- tools/list
    "tools-missing": ("tools/list", "tools", MISSING, "down"),
    "tools-null": ("tools/list", "tools", None, "down"),
    "tool-text": ("tools/list", "tools.0", "add", "down"),
    "tool-name-missing": ("tools/list", "tools.0.name", MISSING, "down"),
    "tool-name-number": ("tools/list", "tools.0.name", 7, "down"),
    "tool-title-number": ("tools/list", "tools.0.title", 7, "down"),
    "tool-description-list": ("tools/list", "tools.0.description", ["Adds."], "down"),
    "tool-schema-list": ("tools/list", "tools.0.inputSchema", [], "down"),
    "tool-schema-true": ("tools/list", "tools.0.inputSchema", True, "down"),
    "tool-schema-without-type": ("tools/list", "tools.0.inputSchema", {}, "up"),
    "tool-properties-list": ("tools/list", "tools.0.inputSchema.properties", [], "up"),
    "tool-output-text": ("tools/list", "tools.0.outputSchema", "object", "down"),
    "tool-annotations-list": ("tools/list", "tools.0.annotations", [], "down"),
    "tool-hint-word": ("tools/list", "tools.0.annotations.readOnlyHint", "perhaps", "down"),
    "tool-icons-object": ("tools/list", "tools.0.icons", {}, "down"),
    "tool-execution-true": ("tools/list", "tools.0.execution", True, "down"),
    "tool-meta-text": ("tools/list", "tools.0._meta", "x", "down"),
    "cursor-number": ("tools/list", "nextCursor", 2, "down"),
    "page-meta-list": ("tools/list", "_meta", [], "down"),
    # ---- server/discover, and the tools of a server of 2026-07-28
    "modern-versions-text": ("server/discover", "supportedVersions", MODERN, "down"),
    "modern-versions-mixed": ("server/discover", "supportedVersions", [MODERN, 7], "down"),
    "modern-capability-true": ("server/discover", "capabilities.tools", True, "down"),
    "modern-logging-list": ("server/discover", "capabilities.logging", [], "down"),
    "modern-tasks-true": ("server/discover", "capabilities.tasks", True, "up"),
    "modern-extensions-list": ("server/discover", "capabilities.extensions", [], "down"),
    "modern-instructions-number": ("server/discover", "instructions", 7, "down"),
    "modern-tools-without-type-of-result": ("modern tools/list", "resultType", MISSING, "down"),
    "modern-tools-without-ttl": ("modern tools/list", "ttlMs", MISSING, "down"),
    "modern-tools-cached-by-nobody": ("modern tools/list", "cacheScope", "nobody", "down"),
    "modern-schema-without-type": ("modern tools/list", "tools.0.inputSchema", {}, "down"),
    "modern-output-without-type": ("modern tools/list", "tools.0.outputSchema", {}, "up"),
}


def altered(value: dict[str, Any], place: str, part: object) -> dict[str, Any]:
    """A copy of a result in which the part at this place is another one, or is left out."""
    copy: dict[str, Any] = json.loads(json.dumps(value))
    at: Any = copy
    *way, last = place.split(".")
    for name in way:
        at = at[int(name)] if isinstance(at, list) else at.setdefault(name, {})
    if part is MISSING:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = part
    return copy


def with_part(question: str, place: str, part: object) -> Callable[[Visit], Awaitable[None]]:
    """A server that gives this part of one of its answers."""
    if question == "initialize":
        return hand(initialize=says(lambda v: altered(initialized(v), place, part)))
    if question == "tools/list":
        return hand(tools=says(lambda _: altered({"tools": TOOLS}, place, part)))
    if question == "server/discover":
        named = altered(discovered(MODERN), place, part)
        return modern_only(MODERN, **named)
    fresh = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public", "tools": TOOLS}
    return modern_only(MODERN, tools=says(lambda _: altered(fresh, place, part)))


SHAPES: dict[str, Shape] = {
    **{
        f"kind-{name}": Shape(
            KIND_SOURCE,
            verdict,
            with_part(question, place, part),
            ("modern" if question.startswith(("modern", "server")) else "legacy") if verdict == "up" else None,
            client=verdict == "up" or name in REFUSED_BY_ALL,
        )
        for name, (question, place, part, verdict) in PARTS.items()
    },
    **{name: Shape(source, "up", sdk(name, kind), "legacy") for name, (source, kind) in KINDS.items()},
    **{
        name: Shape(source, "up", over_sse(Sdk(), post=post, message_unknown=unknown), "sse", "/sse")
        for name, (source, post, unknown) in SSE_KINDS.items()
    },
    **BY_HAND,
}


async def manner(visit: Visit) -> None:
    """What the server of all shapes does with a visit."""
    shape = SHAPES.get(visit.path.split("/")[1])
    place = visit.path.split("/")[1]
    if shape is None or not visit.path.startswith((f"/{place}/mcp", f"/{place}/sse", f"/{place}/message")):
        await send(visit, text(404, "Not Found"))
    else:
        await shape.answer(visit)


def serving() -> Farm:
    """The server of all shapes."""
    return Farm(manner)


def url(farm: Farm, name: str) -> str:
    return f"{farm.url}/{name}{SHAPES[name].path}"
