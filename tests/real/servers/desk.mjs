// A help desk on the TypeScript SDK 1.x: with sessions, as its guide has it, or `--stateless`.
//
//     node desk.mjs MODULES PORT [--stateless]

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const [modules, port, option] = process.argv.slice(2);
const at = (path) => import(pathToFileURL(`${modules}/@modelcontextprotocol/sdk/dist/esm/server/${path}.js`).href);
const { McpServer } = await at("mcp");
const { StreamableHTTPServerTransport } = await at("streamableHttp");

const stateless = option === "--stateless";
const sessions = new Map();

function desk() {
  const server = new McpServer({ name: "desk", version: "1.0.0" });
  server.registerTool("open_hours", { description: "When the desk is open." }, async () => ({
    content: [{ type: "text", text: "9 to 17" }],
  }));
  return server;
}

function refuse(response, status, code, message) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify({ jsonrpc: "2.0", error: { code, message }, id: null }));
}

async function connected(options) {
  const transport = new StreamableHTTPServerTransport(options);
  await desk().connect(transport);
  return transport;
}

// A session is opened for `initialize` alone, and whatever else names none that is known is refused before any work.
async function opened() {
  const transport = await connected({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => void sessions.set(id, transport),
    onsessionclosed: (id) => void sessions.delete(id),
  });
  return transport;
}

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return parts.length ? JSON.parse(Buffer.concat(parts).toString()) : undefined;
}

createServer(async (request, response) => {
  if (request.url === "/sessions") return response.end(String(sessions.size));
  if (request.url !== "/mcp") return response.writeHead(404).end();
  let message;
  try {
    message = await body(request);
  } catch {
    return refuse(response, 400, -32700, "Parse error");
  }
  if (stateless) {
    if (request.method !== "POST") return refuse(response, 405, -32000, "Method not allowed.");
    const transport = await connected({ sessionIdGenerator: undefined });
    response.on("close", () => void transport.close());
    return transport.handleRequest(request, response, message);
  }
  const id = request.headers["mcp-session-id"];
  if (id && !sessions.has(id)) return refuse(response, 404, -32001, "Session not found");
  if (!id && message?.method !== "initialize") return refuse(response, 400, -32000, "Bad Request: No session");
  const transport = id ? sessions.get(id) : await opened();
  return transport.handleRequest(request, response, message);
}).listen(Number(port), "127.0.0.1");
