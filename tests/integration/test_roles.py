"""Who may do what in the database: each function's role its own statements, and no others (sql/roles.sql)."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from local import template
from mcp_registry.aws import db
from mcp_registry.errors import Unavailable
from tests.conftest import ROOT, migrate
from tests.integration.test_servers import PARAMETERS, statements

ROLES = (
    "registry_reader",
    "registry_writer",
    "registry_sweeper",
    "registry_porter",
    "registry_keeper",
    "registry_clerk",
)
# Which roles run a statement; template.yaml says which function has which role.
RUN_BY = {
    "registry_reader": (
        "catalogue.servers.LIST",
        "catalogue.servers.NARROW",
        "catalogue.servers.DETAIL",
        "catalogue.offers.",
        "health.history.",
        "aws.db.VERIFY",
    ),
    "registry_writer": ("catalogue.servers.", "aws.db.VERIFY"),
    "registry_sweeper": (
        "health.sweeps.",
        "health.results.",
        "health.introductions.",
        "health.invitations.",
        "health.maintenance.",
        "ledger.recording.",
        "ledger.keeping.",
        "aws.db.VERIFY",
    ),
    "registry_porter": ("access.identity.", "aws.db.VERIFY"),
    "registry_clerk": (
        "ledger.approvals.",
        "ledger.feed.",
        "ledger.reading.",
        "ledger.publishing.",
        "health.marks.",
        "catalogue.offers.",
        "catalogue.servers.WHOSE",
        "catalogue.servers.IDENTIFY",
        "catalogue.servers.CONTACT",
        "aws.db.VERIFY",
    ),
    "registry_keeper": ("access.audit.", "access.teams.", "access.credentials.", "access.trust.", "aws.db.VERIFY"),
}
# What reads of the catalogue only, although it stands beside what writes.
READS = {"catalogue.servers.LIST", "catalogue.servers.NARROW", "catalogue.servers.DETAIL"}
CASES = [
    (role, name)
    for role, wanted in RUN_BY.items()
    for name in statements()
    if name.startswith(wanted)
    and not (role == "registry_writer" and name in READS)
    and not (role == "registry_clerk" and name == "catalogue.servers.WHOSE_HOLD")
]


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.Connection.connect(database_url) as opened:
        yield opened
        opened.rollback()


def become(connection: psycopg.Connection, role: str) -> None:
    connection.execute("SELECT set_config('role', %s, true)", [role])


def test_every_statement_is_run_by_some_role():
    assert {name for _, name in CASES} == set(statements())


@pytest.mark.parametrize(("role", "name"), CASES)
def test_a_role_may_run_its_functions_statements(connection: psycopg.Connection, role: str, name: str):
    become(connection, role)
    # EXPLAIN asks for the same rights, but for those of functions.
    connection.execute(("EXPLAIN " + statements()[name]).encode(), PARAMETERS)


FORBIDDEN = [
    ("registry_reader", "INSERT INTO registry.server_metadata (server_id) VALUES (1)"),
    ("registry_reader", "UPDATE registry.mcp_servers SET status = 'active'"),
    ("registry_reader", "DELETE FROM registry.mcp_servers"),
    ("registry_reader", "DELETE FROM metrics.sweeps"),
    ("registry_reader", "SELECT metrics.drop_day('2999-01-01')"),
    ("registry_writer", "INSERT INTO metrics.server_health_metrics SELECT"),
    ("registry_writer", "UPDATE registry.server_health SET verdict = 'healthy'"),
    ("registry_writer", "SELECT metrics.drop_day('2999-01-01')"),
    ("registry_writer", "DELETE FROM metrics.status_transitions"),
    ("registry_sweeper", "UPDATE registry.mcp_servers SET endpoint_url = 'http://evil.example'"),
    ("registry_sweeper", "UPDATE registry.endpoints SET url = 'http://evil.example'"),
    ("registry_sweeper", "UPDATE registry.endpoints SET lease_until = NULL"),
    ("registry_sweeper", "DELETE FROM registry.mcp_servers"),
    ("registry_sweeper", "INSERT INTO registry.tools (server_id, name, input_schema) VALUES (1, 'x', '{}')"),
    ("registry_sweeper", "SELECT description FROM registry.mcp_servers"),
    ("registry_sweeper", "UPDATE registry.tools SET description = NULL"),
    ("registry_sweeper", "SELECT * FROM registry.server_metadata"),
    ("registry_sweeper", "DELETE FROM registry.documents"),
    ("registry_porter", "UPDATE registry.tokens SET role = 'admin'"),
    ("registry_porter", "UPDATE registry.tokens SET revoked_at = NULL"),
    ("registry_porter", "DELETE FROM registry.tokens"),
    ("registry_porter", "UPDATE registry.issuers SET role = 'admin'"),
    ("registry_porter", "SELECT name FROM registry.mcp_servers"),
    ("registry_porter", "SELECT * FROM registry.audit"),
    ("registry_reader", "UPDATE registry.ledger SET approved_id = compatible_id"),
    ("registry_reader", "INSERT INTO registry.approvals (server_id) VALUES (1)"),
    ("registry_writer", "UPDATE registry.ledger SET approved_id = compatible_id"),
    ("registry_sweeper", "INSERT INTO registry.approvals (server_id) VALUES (1)"),
    ("registry_clerk", "UPDATE registry.approvals SET decision = 'approve'"),
    ("registry_clerk", "DELETE FROM registry.approvals"),
    ("registry_clerk", "UPDATE registry.documents SET document = '{}'"),
    ("registry_clerk", "UPDATE registry.snapshots SET prompt = prompt"),
    ("registry_sweeper", "UPDATE registry.probe_headers SET ended_at = NULL"),
    ("registry_clerk", "UPDATE registry.probe_headers SET server_id = 1"),
    *((role, "SELECT * FROM registry.probe_headers") for role in ("registry_reader", "registry_writer")),
    ("registry_clerk", "UPDATE registry.mcp_servers SET owner = 'x'"),
    ("registry_keeper", "UPDATE registry.tokens SET digest = digest"),
    ("registry_keeper", "UPDATE registry.audit SET actor = 'x'"),
    ("registry_keeper", "DELETE FROM registry.audit"),
    ("registry_keeper", "UPDATE registry.mcp_servers SET owner = 'x'"),
    ("registry_clerk", "UPDATE registry.mcp_servers SET owner = 'x'"),
    ("registry_clerk", "UPDATE registry.endpoints SET url = 'http://evil.example'"),
    ("registry_clerk", "INSERT INTO registry.snapshots SELECT"),
    ("registry_clerk", "INSERT INTO registry.documents SELECT"),
    ("registry_clerk", "DELETE FROM registry.changes"),
    ("registry_clerk", "UPDATE registry.changes SET grade = 'notation'"),
    ("registry_clerk", "SELECT * FROM registry.audit"),
    ("registry_reader", "INSERT INTO registry.changes (server_id, name, owner, kind) VALUES (1, 'x', 'x', 'status')"),
    ("registry_writer", "SELECT * FROM registry.changes"),
    ("registry_sweeper", "UPDATE registry.changes SET grade = 'notation'"),
    *(
        (role, "SELECT registry.settled_entry('registry.changes', 17224)")
        for role in ("registry_reader", "registry_writer")
    ),
    *(
        (role, "SELECT digest FROM registry.tokens")
        for role in ("registry_reader", "registry_writer", "registry_sweeper")
    ),
    *((role, "CREATE TABLE registry.mine (x int)") for role in ROLES),
    *((role, "DROP TABLE metrics.sweeps") for role in ROLES),
    *((role, "INSERT INTO registry.migrations (version, name, checksum) VALUES (9999, 'x', 'x')") for role in ROLES),
]


@pytest.mark.parametrize(("role", "statement"), FORBIDDEN)
def test_a_role_may_do_nothing_else(connection: psycopg.Connection, role: str, statement: str):
    become(connection, role)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_no_role_has_a_password_or_rights_of_its_own(connection: psycopg.Connection):
    rows = connection.execute(
        "SELECT rolpassword IS NULL, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin"
        "  FROM pg_authid WHERE rolname = ANY (%s)",
        [list(ROLES)],
    ).fetchall()
    assert rows == [(True, False, False, False, False, False, True)] * len(ROLES)


def test_a_connection_that_takes_a_role_on_has_it_with_its_first_statement(database_url: str):
    database = db.Database(database_url, "role", "registry_sweeper").begin()
    assert database.read("SELECT current_user") == ("registry_sweeper",)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.read("SELECT description FROM registry.mcp_servers")
    database.close()


def test_a_role_that_does_not_exist_is_no_way_in(database_url: str):
    with pytest.raises((Unavailable, psycopg.Error)):
        db.Database(database_url, "role", "registry_nobody").begin().read(db.VERIFY)


def test_an_unknown_access_is_said_at_once(database_url: str):
    with pytest.raises(ValueError, match="DATABASE_ACCESS must be one of"):
        db.Database(database_url, "password")


def test_a_role_has_the_settings_that_a_connection_would_bring_along(connection: psycopg.Connection):
    for role in ROLES:
        row = connection.execute("SELECT rolconfig FROM pg_roles WHERE rolname = %s", [role]).fetchone()
        assert row is not None
        found = dict(setting.split("=", 1) for setting in row[0])
        assert found.pop("statement_timeout") == ("48s" if role == "registry_sweeper" else "3600ms")
        assert found == db.SETTINGS


class Listening:
    """A server that asks for a password in clear text, hears it, and hangs up."""

    def __init__(self) -> None:
        self.startup: dict[str, str] = {}
        self.password = ""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self._socket, self._socket.accept()[0] as connection:
            length = struct.unpack("!i", connection.recv(4, socket.MSG_WAITALL))[0]
            words = connection.recv(length - 4, socket.MSG_WAITALL)[4:].decode().split("\0")
            self.startup = dict(zip(words[::2], words[1::2], strict=False))
            connection.sendall(b"R" + struct.pack("!ii", 8, 3))
            length = struct.unpack("!i", connection.recv(5, socket.MSG_WAITALL)[1:])[0]
            self.password = connection.recv(length - 4, socket.MSG_WAITALL).rstrip(b"\0").decode()


@pytest.mark.parametrize("access", ["iam", "proxy"])
def test_by_iam_a_function_logs_in_as_its_role_with_a_token_for_a_password(
    access: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    server = Listening()
    url = f"postgresql://localhost:{server.port}/registry?sslmode=disable&hostaddr=127.0.0.1"
    with pytest.raises(Unavailable):
        db.Database(url, access, "registry_reader").begin().read(db.VERIFY)
    server.thread.join(10)
    assert server.startup["user"] == "registry_reader" and server.startup["database"] == "registry"
    # The proxy closes a connection that brings settings along.
    assert ("options" in server.startup) == (access == "iam")
    assert server.password.startswith(f"localhost:{server.port}/?Action=connect&DBUser=registry_reader&")
    assert "X-Amz-Signature=" in server.password


def test_what_roles_sql_takes_away_is_taken_away(new_database):
    """A right that somebody gave by hand is gone after the next deployment, whatever it is on."""
    url = new_database()
    with psycopg.Connection.connect(url, autocommit=True) as connection:
        stated = connection.execute(GRANTED).fetchall()
        for role in ROLES:
            connection.execute(
                f"""GRANT ALL ON ALL TABLES IN SCHEMA registry, metrics TO {role};
                    GRANT ALL ON ALL SEQUENCES IN SCHEMA registry, metrics TO {role};
                    GRANT ALL ON ALL ROUTINES IN SCHEMA registry, metrics TO {role}""".encode()
            )
        assert connection.execute(GRANTED).fetchall() != stated
        assert migrate.migrate(url) == []
        assert connection.execute(GRANTED).fetchall() == stated


# Every right of a role on a table, a sequence and a function of the two schemas.
GRANTED = """
SELECT name::text, grantee::regrole::text, privilege_type
  FROM (SELECT oid::regclass::text, relacl, relnamespace FROM pg_class
         UNION ALL
        SELECT oid::regprocedure::text, proacl, pronamespace FROM pg_proc) AS held (name, acl, schema)
 CROSS JOIN aclexplode(acl)
 WHERE schema IN ('registry'::regnamespace, 'metrics'::regnamespace)
   AND grantee <> 0
   AND pg_get_userbyid(grantee) LIKE 'registry\\_%'
 ORDER BY 1, 2, 3
"""


def test_a_user_who_may_not_make_roles_can_still_migrate(new_database):
    url = new_database(migrated=False)
    with psycopg.Connection.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS plain")
        connection.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
        name = connection.info.dbname
        connection.execute(f'GRANT CREATE ON DATABASE "{name}" TO plain'.encode())
    plain = make_conninfo(url, user="plain", password="plain")
    assert migrate.migrate(plain)
    with psycopg.Connection.connect(plain, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM registry.mcp_servers").fetchone() == (0,)


@pytest.fixture
def rds(new_database) -> Iterator[str]:
    """A new database of a cluster that has the role rds_iam, as every RDS has."""
    url = new_database(migrated=False)
    with psycopg.Connection.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE rds_iam")
        yield url
        connection.execute("DROP ROLE rds_iam")


TAKES_A_TOKEN = "SELECT pg_has_role(%s, 'rds_iam', 'MEMBER')"


def test_who_logs_in_by_a_password_goes_on_doing_so_on_an_rds(rds: str):
    """RDS refuses the password of whoever has rds_iam, also through a role: of every user that DatabaseUrl may name.

    Who is not the master of that database may not even grant it.
    """
    with psycopg.Connection.connect(rds, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS creator")
        connection.execute("CREATE ROLE creator LOGIN CREATEROLE PASSWORD 'creator'")
        name = connection.info.dbname
        connection.execute(f'GRANT CREATE ON DATABASE "{name}" TO creator'.encode())
        connection.execute(f"GRANT {', '.join(ROLES)} TO creator WITH ADMIN OPTION".encode())
        assert migrate.migrate(make_conninfo(rds, user="creator", password="creator"))
        for who in ("creator", *ROLES):
            assert connection.execute(TAKES_A_TOKEN, [who]).fetchone() == (False,), who


def test_who_logs_in_by_a_token_may(rds: str):
    assert migrate.migrate(rds, by_token=True)
    with psycopg.Connection.connect(rds, autocommit=True) as connection:
        for who in ROLES:
            assert connection.execute(TAKES_A_TOKEN, [who]).fetchone() == (True,), who


def test_the_template_gives_each_function_the_role_that_runs_its_statements():
    parameters = {"DatabaseUrl": "postgresql://h/d", "RegistryPassword": "x"}
    functions = template.load(ROOT / "template.yaml", parameters).functions
    given = {name: function.environment.get("DATABASE_ROLE") for name, function in functions.items()}
    reader, writer, sweeper, porter, keeper, clerk = ROLES
    assert given == {
        "AuthorizerFunction": None,
        "FrontFunction": None,
        "HealthSweepFunction": None,
        "IntroduceFunction": None,
        "ProbeHeadersFunction": None,
        "LedgerFunction": clerk,
        "MarkFunction": clerk,
        "MigrateFunction": "registry_owner",
        "IdentifyFunction": porter,
        **dict.fromkeys(("RegisterFunction", "UpdateFunction", "DeleteFunction", "TransferFunction"), writer),
        **dict.fromkeys(
            ("ListFunction", "DetailFunction", "HistoryFunction", "MetricsFunction", "HealthFunction"), reader
        ),
        **dict.fromkeys(("HealthCheckFunction", "StartSweepFunction", "MaintainFunction"), sweeper),
        **dict.fromkeys(("HealthWriteFunction", "RememberFunction"), sweeper),
        "AccessFunction": keeper,
    }
