"""What Lambda does with a function, as far as a thread of it notices: imports it, then hands it one event a line."""
# pyright: basic

from __future__ import annotations

import importlib.util
import json
import logging
import sys

logging.basicConfig(level="INFO")
spec = importlib.util.spec_from_file_location("function", sys.argv[1])
assert spec and spec.loader
function = importlib.util.module_from_spec(spec)
spec.loader.exec_module(function)
sys.stdout.write(json.dumps({"ready": True}) + "\n")
for line in sys.stdin:
    answer = function.lambda_handler(json.loads(line), None)
    # In one write: the log goes to the same place.
    sys.stdout.write(json.dumps({"answer": answer}) + "\n")
