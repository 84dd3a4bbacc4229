"""A straightforward aiohttp reverse proxy: what one would write first, and the yardstick of the benchmark.

Streams both ways, keeps upstream connections alive, drops hop-by-hop fields, injects a static Bearer token
and counts for Prometheus. It refreshes no token and guards nothing.
"""

import argparse
import ssl
import time
from collections.abc import AsyncIterator
from typing import Final

import uvloop
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy
from prometheus_client import Counter, Histogram, generate_latest
from yarl import URL

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    },
)
REQUESTS: Final = Counter("requests", "Forwarded requests.", ["method", "status"])
DURATION: Final = Histogram("request_duration_seconds", "Time to the last response byte.")


def end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return `headers` without the fields that concern one hop only (RFC 9110, section 7.6.1)."""
    connection_options = {
        name.strip().lower() for value in headers.getall(hdrs.CONNECTION, ()) for name in value.split(",")
    }
    dropped = HOP_BY_HOP | connection_options
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


class Proxy:
    """Forwards every request to one upstream."""

    def __init__(self, *, upstream: URL, token: str, tls: ssl.SSLContext) -> None:
        self._upstream = upstream
        self._authorization = f"Bearer {token}"
        self._tls = tls
        self._session: ClientSession

    async def session(self, _: web.Application) -> AsyncIterator[None]:
        """Keep one client session for the application's lifetime."""
        connector = TCPConnector(limit=100, ssl=self._tls)
        timeout = ClientTimeout(total=None, sock_connect=5, sock_read=60)
        async with ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False
        ) as self._session:
            yield

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Send the request on with the token, and stream the answer back."""
        began = time.perf_counter()
        headers = end_to_end(request.headers)
        headers.pop(hdrs.HOST, None)
        headers[hdrs.AUTHORIZATION] = self._authorization
        try:
            async with self._session.request(
                request.method,
                self._upstream.join(request.rel_url),
                headers=headers,
                data=request.content if request.body_exists else None,
                allow_redirects=False,
            ) as answer:
                response = web.StreamResponse(status=answer.status, reason=answer.reason)
                response.headers.extend(end_to_end(answer.headers))
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
        except (ClientError, TimeoutError) as error:
            raise web.HTTPBadGateway from error
        REQUESTS.labels(request.method, answer.status).inc()
        DURATION.observe(time.perf_counter() - began)
        return response


async def metrics(_: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={hdrs.CONTENT_TYPE: "text/plain; version=0.0.4"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen-port", type=int, required=True)
    parser.add_argument("--upstream", type=URL, required=True, help="base URL, http or https")
    parser.add_argument("--token", required=True)
    parser.add_argument("--ca-file", help="trust these authorities instead of the system's")
    arguments = parser.parse_args()

    proxy = Proxy(
        upstream=arguments.upstream,
        token=arguments.token,
        tls=ssl.create_default_context(cafile=arguments.ca_file),
    )
    app = web.Application()
    app.cleanup_ctx.append(proxy.session)
    app.router.add_get("/metrics", metrics)
    app.router.add_route("*", "/{path:.*}", proxy.forward)
    web.run_app(
        app,
        host="127.0.0.1",
        port=arguments.listen_port,
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
