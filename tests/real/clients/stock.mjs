// A stock MCP client of the TypeScript SDK, asked by lines as stock.py is.
//
//     node stock.mjs FOLDER 1|2 [MODE]
//
// FOLDER holds node_modules with `@modelcontextprotocol/sdk` (1) or `@modelcontextprotocol/client` (2). As the SDK's own
// guide has it, an address that refuses streamable HTTP by a 4xx is asked once more over SSE.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [folder, line, mode] = process.argv.slice(2);
const SECONDS = 15;
const at = (path) => import(pathToFileURL(`${folder}/node_modules/@modelcontextprotocol/${path}`).href);

let Client, Streamable, Sse;
if (line === "1") {
  ({ Client } = await at("sdk/dist/esm/client/index.js"));
  ({ StreamableHTTPClientTransport: Streamable } = await at("sdk/dist/esm/client/streamableHttp.js"));
  ({ SSEClientTransport: Sse } = await at("sdk/dist/esm/client/sse.js"));
} else {
  ({ Client, StreamableHTTPClientTransport: Streamable, SSEClientTransport: Sse } = await at("client/dist/index.mjs"));
}

async function list(url, Transport, statuses) {
  const fetching = async (input, init) => {
    const answer = await fetch(input, init);
    statuses.push(answer.status);
    return answer;
  };
  const transport = new Transport(new URL(url), { fetch: fetching });
  const options = mode ? { versionNegotiation: { mode } } : {};
  const client = new Client({ name: "stock", version: "1" }, options);
  try {
    await client.connect(transport);
    return (await client.listTools()).tools.length;
  } finally {
    await transport.terminateSession?.().catch(() => {});
    await client.close().catch(() => {});
  }
}

async function ask(url) {
  const found = { url, outcome: "up", tools: null, error: null };
  const statuses = [];
  const errors = [];
  for (const Transport of [Streamable, Sse]) {
    let timer;
    try {
      const late = new Promise((_, fail) => {
        timer = setTimeout(() => fail(new Error("timed out")), SECONDS * 1000);
      });
      found.tools = await Promise.race([list(url, Transport, statuses), late]);
      return found;
    } catch (error) {
      errors.push(`${error.name}: ${error.message}`.slice(0, 300));
      const last = statuses.at(-1) ?? 0;
      if (statuses.includes(401) || last < 400 || last >= 500) break;
    } finally {
      clearTimeout(timer);
    }
  }
  found.outcome = statuses.includes(401) ? "gated" : "down";
  found.error = errors.join("; ");
  return found;
}

process.on("unhandledRejection", () => {});
const asked = [];
for await (const text of createInterface({ input: process.stdin })) {
  asked.push(ask(JSON.parse(text)).then((found) => console.log(JSON.stringify(found))));
}
await Promise.all(asked);
process.exit(0);
