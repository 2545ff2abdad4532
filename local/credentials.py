"""Change the Basic credentials of a deployment and refuse nobody: `python -m local.credentials begin|finish ARN`.

`begin` puts a new password beside the old one, and both are valid; once every server and person has the new one,
`finish` takes the old one away. ARN is the stack's output CredentialsSecret. No password is printed: whoever may read
the secret reads it there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import boto3
from botocore.exceptions import BotoCoreError, ClientError

LENGTH = 32
# A user name ends at the first colon; the others would have to be escaped in JSON and in shells.
EXCLUDED = '":\\'
# How long the authorizer goes on with what it has read (mcp_registry.aws.secret), and ...
CACHED_SECONDS = 60
# ... how long API Gateway remembers that a password was right, or wrong (ReauthorizeEvery in template.yaml).
REMEMBERED_SECONDS = 30


class RotationError(Exception):
    """The credentials are not in a state for this; the message says what to do."""


def begin(arn: str) -> str:
    """Make a new password, keep the old one valid, and return what happens next.

    Raises RotationError where a rotation is under way already, botocore's errors where AWS refuses.
    """
    client = boto3.client("secretsmanager")
    held = _read(arn)
    if "previous_password" in held:
        raise RotationError("A rotation is under way: once everybody has the new password, finish it.")
    password = client.get_random_password(PasswordLength=LENGTH, ExcludeCharacters=EXCLUDED)["RandomPassword"]
    client.put_secret_value(
        SecretId=arn,
        SecretString=json.dumps(
            {
                **held,
                "password": password,
                "previous_username": held["username"],
                "previous_password": held["password"],
            }
        ),
    )
    return (
        f"The new password is valid in {CACHED_SECONDS} seconds, the old one goes on. Wait that long (one that is tried"
        f" too early is refused for {REMEMBERED_SECONDS} seconds), give the new one to every server and person (the"
        " secret holds it), then run: finish."
    )


def finish(arn: str) -> str:
    """Take the old password away, and return what happens next. Raises as `begin`."""
    held = _read(arn)
    if "previous_password" not in held:
        raise RotationError("No rotation is under way: begin one.")
    kept = {name: value for name, value in held.items() if not name.startswith("previous_")}
    boto3.client("secretsmanager").put_secret_value(SecretId=arn, SecretString=json.dumps(kept))
    return f"The old password ends within {CACHED_SECONDS + REMEMBERED_SECONDS} seconds."


def _read(arn: str) -> dict[str, str]:
    held = json.loads(boto3.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"])
    if not (held.get("username") and held.get("password")):
        raise RotationError("This secret holds no username and password: is it the output CredentialsSecret?")
    return held


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit code 0 where it was done."""
    parser = argparse.ArgumentParser(prog="python -m local.credentials", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("step", choices=("begin", "finish"))
    parser.add_argument("arn", help="the stack's output CredentialsSecret")
    options = parser.parse_args(arguments)
    try:
        print({"begin": begin, "finish": finish}[options.step](options.arn))
    except (RotationError, BotoCoreError, ClientError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
