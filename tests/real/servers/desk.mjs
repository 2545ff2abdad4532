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

const sessions = new Map();

function desk() {
  const server = new McpServer({ name: "desk", version: "1.0.0" });
  server.registerTool("open_hours", { description: "When the desk is open." }, async () => ({
    content: [{ type: "text", text: "9 to 17" }],
  }));
  return server;
}

async function transport(request) {
  const known = sessions.get(request.headers["mcp-session-id"]);
  if (known) return known;
  const made = new StreamableHTTPServerTransport(
    option === "--stateless"
      ? { sessionIdGenerator: undefined }
      : {
          sessionIdGenerator: randomUUID,
          onsessioninitialized: (id) => void sessions.set(id, made),
          onsessionclosed: (id) => void sessions.delete(id),
        },
  );
  await desk().connect(made);
  return made;
}

createServer(async (request, response) => {
  if (request.url === "/sessions") return response.end(String(sessions.size));
  if (request.url !== "/mcp") return response.writeHead(404).end();
  if (option !== "--stateless" && request.headers["mcp-session-id"] && !sessions.has(request.headers["mcp-session-id"])) {
    const error = { code: -32001, message: "Session not found" };
    response.writeHead(404, { "content-type": "application/json" });
    return response.end(JSON.stringify({ jsonrpc: "2.0", error, id: null }));
  }
  const serving = await transport(request);
  if (option === "--stateless") response.on("close", () => void serving.close());
  await serving.handleRequest(request, response);
}).listen(Number(port), "127.0.0.1");
