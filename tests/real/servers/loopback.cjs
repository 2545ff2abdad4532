// Loaded before a server of Node.js that has no option for its interface and would take every one: it gets loopback.

const { Server } = require("node:net");

const listen = Server.prototype.listen;
Server.prototype.listen = function (first, ...rest) {
  if (first !== null && typeof first === "object" && first.port !== undefined && !first.host) {
    return listen.call(this, { ...first, host: "127.0.0.1" }, ...rest);
  }
  if (/^\d+$/.test(String(first)) && typeof rest[0] !== "string") {
    return listen.call(this, Number(first), "127.0.0.1", ...rest);
  }
  return listen.call(this, first, ...rest);
};
