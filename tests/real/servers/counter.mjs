// A ticket counter on the TypeScript SDK 2.x, which serves both protocols at one path.
//
//     node counter.mjs MODULES PORT

import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const [modules, port] = process.argv.slice(2);
const at = (path) => import(pathToFileURL(`${modules}/@modelcontextprotocol/${path}`).href);
const { McpServer, createMcpHandler } = await at("server/dist/index.mjs");
const { toNodeHandler } = await at("node/dist/index.mjs");

const handler = createMcpHandler(() => {
  const server = new McpServer({ name: "counter", version: "2.0.0" });
  server.registerTool("next_number", { description: "The number that is called next." }, async () => ({
    content: [{ type: "text", text: "17" }],
  }));
  return server;
});
const serve = toNodeHandler(handler);

createServer((request, response) => {
  if (request.url !== "/mcp") return response.writeHead(404).end();
  return serve(request, response);
}).listen(Number(port), "127.0.0.1");
