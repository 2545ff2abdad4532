"""The Lambda authorizer: says who sent a request, and refuses whom nobody knows.

Contract: AWS documentation, "Input to an API Gateway Lambda authorizer" (REQUEST) and "Output from ...". During an
upgrade the stage of the release before still sends an input of type TOKEN, which has no address.
"""

from __future__ import annotations

import os

from mcp_registry.access import admission

if admission.TYPE_CHECKING:
    from typing import Any

if os.environ.get("REGISTRY_SECRET_ARN"):
    # Most of a cold start. Lambda lends a function that initialises more CPU than one that answers.
    from mcp_registry.aws import secret

    secret.connect()


def lambda_handler(event: dict[str, Any], context: object) -> dict[str, object]:
    """Answer a policy that allows every route of the stage, with who it is, or one that denies every route.

    Every route, because API Gateway remembers the answer for the header, whatever route it was asked for: what a role
    may not call is refused by the functions. A denial is answered 401, by the gateway response ACCESS_DENIED of the
    template. The other way to a 401 is an exception, which nobody remembers, and of which Lambda would log the stack as
    an error for each password that somebody tries: that is for who was not looked at. Any other exception means 500.
    """
    if event.get("type") == "TOKEN":
        given, address = [event["authorizationToken"]], ""
    else:
        headers: dict[str, list[str]] = event.get("multiValueHeaders") or {}
        given = [value for name, values in headers.items() if name.lower() == "authorization" for value in values]
        address = event["requestContext"]["identity"]["sourceIp"]
    # The answer is remembered for one of them, and nobody has written down for which.
    if len(given) != 1:
        raise admission.Unauthorized
    caller = admission.caller_of(given[0], address)
    stage = "/".join(event["methodArn"].split("/")[:2])
    effect = "Deny" if caller is None else "Allow"
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": f"{stage}/*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    if caller is None:
        return {"principalId": "nobody", "policyDocument": policy}
    # The name is for the access log too.
    told = {"role": caller["role"], "team": caller["team"]}
    return {"principalId": caller["name"], "policyDocument": policy, "context": told}
