-- Two more verdicts of a check. A file of its own, because a value can only be used by a later transaction.
--
-- What now exists: `limited`, the server is there and asks to be left alone for a while (429), which counts as up; and
-- `mcp_error`, JSON-RPC is spoken there and no client can begin, or list the tools.

ALTER TYPE metrics.verdict ADD VALUE 'limited';
ALTER TYPE metrics.verdict ADD VALUE 'mcp_error';
