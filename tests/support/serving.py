"""A server whose connections end with it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(
    serve: Serve, *, limit: int = 2**16, sock: socket.socket | None = None
) -> AsyncIterator[asyncio.Server]:
    """Run `serve` for each connection to `sock`, or to a free port; cancel what still runs at the end."""
    tasks: set[asyncio.Future[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if sock is None:
        sock = socket.create_server(("127.0.0.1", 0))
    server = await asyncio.start_server(accept, sock=sock, limit=limit)
    try:
        yield server
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
