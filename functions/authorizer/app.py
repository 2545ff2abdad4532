"""The Lambda authorizer: lets requests with valid Basic credentials through.

Contract: AWS documentation, "Input to an API Gateway Lambda authorizer" (TOKEN) and "Output from ...".
"""

from __future__ import annotations

import os

from mcp_registry.access import auth

if os.environ.get("REGISTRY_SECRET_ARN"):
    # Most of a cold start. Lambda lends a function that initialises more CPU than one that answers.
    from mcp_registry.aws import secret

    secret.connect()


def lambda_handler(event: dict[str, str], context: object) -> dict[str, object]:
    """Answer a policy that allows every route of the stage.

    Every route, because API Gateway remembers the answer for the header, whatever route it was asked for. An
    exception with the message "Unauthorized" is how API Gateway is told to answer 401; any other means 500.
    """
    header = event.get("authorizationToken", "")
    if not auth.permits(header) or (who := auth.parse(header)) is None:
        raise Exception("Unauthorized")
    stage = "/".join(event["methodArn"].split("/")[:2])
    statement = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": f"{stage}/*"}
    # The user name, for the access log.
    return {"principalId": who[0].decode(), "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}}
