"""The token that RDS takes for a password, against the one that boto3 makes."""

from __future__ import annotations

from datetime import UTC, datetime
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


def test_without_credentials_there_is_no_token():
    with pytest.raises(KeyError):
        token.sign(HOST, 5432, "registry_reader", environment={"AWS_REGION": "eu-west-1"})
