"""Writes are gathered, and each transport gets its own bytes whatever happens to another."""

import asyncio

from bits_auth_proxy.forward.write_batcher import WriteBatcher


class Transport(asyncio.WriteTransport):
    """Notes what is written and whether it was aborted; raises `error` if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.written = b""
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.error is not None:
            raise self.error
        self.written += bytes(data)

    def abort(self) -> None:
        self.closing = True


def test_a_write_that_raises_costs_no_other_connection_its_bytes() -> None:
    crashes: list[BaseException] = []
    batcher = WriteBatcher(lambda _: None, crashes.append)
    error = RuntimeError("Cannot call write() after write_eof()")
    before, faulty, after = Transport(), Transport(error), Transport()
    for transport in (before, faulty, after, faulty, after):
        batcher.write(transport, b"x")
    batcher.flush()
    assert (before.written, after.written) == (b"x", b"xx")
    assert faulty.closing
    assert crashes == [error]
