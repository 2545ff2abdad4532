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
    """Answer a policy that allows every route of the stage, or denies every one.

    Every route, because API Gateway remembers the answer for the header, whatever route it was asked for. A denial is
    answered 401, by the gateway response ACCESS_DENIED of the template. The other way to a 401 is an exception, which
    nobody remembers, and of which Lambda would log the stack as an error for each password that somebody tries. Here an
    exception means 500.
    """
    header = event.get("authorizationToken", "")
    who = auth.parse(header) if auth.permits(header) else None
    stage = "/".join(event["methodArn"].split("/")[:2])
    effect = "Deny" if who is None else "Allow"
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": f"{stage}/*"}
    # The user name, for the access log; of who is refused nothing that they sent.
    name = "nobody" if who is None else who[0].decode()
    return {"principalId": name, "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}}
