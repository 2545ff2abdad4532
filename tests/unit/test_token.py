"""The token that RDS takes for a password, against the one that boto3 makes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qsl

import botocore.session
import pytest

from mcp_registry.aws import token

HOST = "registry.abc123.eu-west-1.rds.amazonaws.com"


@pytest.mark.parametrize("session", ["", "IQoJb3JpZ2luX2VjE+/=="])
def test_the_token_is_the_one_that_boto3_makes(session: str):
    environment = {
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_SESSION_TOKEN": session,
    }
    client: Any = botocore.session.Session().create_client(
        "rds",
        region_name="eu-west-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=session or None,
    )
    theirs = client.generate_db_auth_token(HOST, 5432, "registry_reader")
    place, _, asked = theirs.partition("?")
    # It takes no moment: ours is signed as of theirs.
    moment = datetime.strptime(dict(parse_qsl(asked))["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    ours = token.sign(HOST, 5432, "registry_reader", environment=environment, moment=moment)
    assert ours.partition("?")[0] == place == f"{HOST}:5432/"
    assert dict(parse_qsl(ours.partition("?")[2])) == dict(parse_qsl(asked))


@pytest.fixture
def credentials_at() -> Iterator[tuple[str, list[str | None]]]:
    """The address of credentials, as Lambda has one for what it starts from a snapshot, and who asked there."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(200 if self.path == "/2021-04-23/credentials?of=me" else 404)
            self.end_headers()
            found = {
                "AccessKeyId": f"AKIA{len(asked)}",
                "SecretAccessKey": "secret",
                "Token": "session",
                "Expiration": "x",
            }
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def test_what_is_started_from_a_snapshot_asks_who_it_is_for_each_token(credentials_at: tuple[str, list[str | None]]):
    url, asked = credentials_at
    environment = {
        "AWS_REGION": "eu-west-1",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/2021-04-23/credentials?of=me",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "word",
    }
    moment = datetime(2026, 11, 30, tzinfo=UTC)
    for number in (1, 2):
        ours = token.sign(HOST, 5432, "registry_reader", environment=environment, moment=moment)
        same = {"AWS_ACCESS_KEY_ID": f"AKIA{number}", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "session"}
        given = {"AWS_REGION": "eu-west-1", **same}
        assert ours == token.sign(HOST, 5432, "registry_reader", environment=given, moment=moment)
    assert asked == ["word", "word"]
    wrong = {**environment, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/other"}
    with pytest.raises(OSError, match="404"):
        token.sign(HOST, 5432, "registry_reader", environment=wrong)


def test_without_credentials_there_is_no_token():
    with pytest.raises(KeyError):
        token.sign(HOST, 5432, "registry_reader", environment={"AWS_REGION": "eu-west-1"})
