"""An authorization server for the tests: python authlib_server.py CLIENT_ID CLIENT_SECRET LIFETIME.

Prints its origin as a line of JSON; each line {"secret": …} on standard input sets the client's secret, null
removes the client, and is answered with a line. It ends with its standard input.
"""

import json
import os
import sys
import threading
import time
from typing import Any

# Authlib insists on https; on loopback there is none.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, InvalidScopeError, TokenMixin, grants
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from flask import Flask, Request, Response
from werkzeug.serving import make_server

CLIENT_ID, FIRST_SECRET, LIFETIME = sys.argv[1], sys.argv[2], int(sys.argv[3])
SCOPES = {"application"}
secrets: dict[str, str | None] = {CLIENT_ID: FIRST_SECRET, "resource-server": "resource-server-secret"}


class Client(ClientMixin):
    """A confidential client of the client credentials grant."""

    def __init__(self, client_id: str, secret: str) -> None:
        self.client_id = client_id
        self._secret = secret

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        return " ".join(word for word in (scope or "").split() if word in SCOPES)

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self._secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"


class Token(TokenMixin):
    """An access token in memory."""

    def __init__(self, client_id: str, data: dict[str, Any]) -> None:
        self.client_id = client_id
        self.scope: str = data.get("scope", "")
        self.expires_at = time.time() + data["expires_in"]
        self.revoked = False

    def check_client(self, client: ClientMixin) -> bool:
        return client.get_client_id() == self.client_id

    def get_scope(self) -> str:
        return self.scope

    def is_expired(self) -> bool:
        return time.time() > self.expires_at

    def is_revoked(self) -> bool:
        return self.revoked


tokens: dict[str, Token] = {}


def query_client(client_id: str) -> Client | None:
    secret = secrets.get(client_id)
    return None if secret is None else Client(client_id, secret)


def save_token(data: dict[str, Any], request: Any) -> None:
    tokens[data["access_token"]] = Token(request.client.get_client_id(), data)


class Grant(grants.ClientCredentialsGrant):
    """The grant, by the way of authentication that Bits documents."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

    def validate_requested_scope(self) -> None:
        if not set((self.request.payload.scope or "").split()) <= SCOPES:
            raise InvalidScopeError


class Introspection(IntrospectionEndpoint):
    """RFC 7662."""

    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        return tokens.get(token_string)

    def check_permission(self, token: Token, client: ClientMixin, request: Any) -> bool:
        return client.get_client_id() == "resource-server"

    def introspect_token(self, token: Token) -> dict[str, Any]:
        return {"client_id": token.client_id, "scope": token.scope, "exp": int(token.expires_at)}


class Revocation(RevocationEndpoint):
    """RFC 7009."""

    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        return tokens.get(token_string)

    def revoke_token(self, token: Token, request: Request) -> None:
        token.revoked = True


app = Flask(__name__)
app.config["OAUTH2_TOKEN_EXPIRES_IN"] = {"client_credentials": LIFETIME}
server = AuthorizationServer(app, query_client=query_client, save_token=save_token)
server.register_grant(Grant)
server.register_endpoint(Introspection)
server.register_endpoint(Revocation)


@app.post("/token")
def token() -> Response:
    return server.create_token_response()


@app.post("/introspect")
def introspect() -> Response:
    return server.create_endpoint_response(Introspection.ENDPOINT_NAME)


@app.post("/revoke")
def revoke() -> Response:
    return server.create_endpoint_response(Revocation.ENDPOINT_NAME)


def main() -> None:
    http = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    paths = {"token": "/token", "introspection": "/introspect", "revocation": "/revoke"}
    print(json.dumps({"origin": f"http://127.0.0.1:{http.server_port}", **paths}), flush=True)
    for line in sys.stdin:
        secrets[CLIENT_ID] = json.loads(line)["secret"]
        print("{}", flush=True)


if __name__ == "__main__":
    main()
