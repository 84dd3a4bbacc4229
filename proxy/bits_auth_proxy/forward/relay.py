"""The way of one response from the API to the client: heads, content and trailers become bytes to send.

Content that arrives before `begin` is held: so a 401 can wait until it is known whether another token helps.
"""

from typing import Final, final

from bits_auth_proxy.forward.headers import ResponseRules, forwardable_trailers
from bits_auth_proxy.http1.messages import NO_BODY, Field, RequestHead, ResponseHead
from bits_auth_proxy.http1.serializing import encode_chunk, encode_last_chunk


@final
class ResponseRelay:
    """One response. What it gives out is to be written at the end of each read, at once."""

    __slots__ = (
        "_chunked",
        "_head",
        "_held",
        "_length",
        "_out",
        "_request",
        "_request_id",
        "_rules",
        "_trailers",
        "answering",
        "begun",
        "complete",
        "keep_alive",
    )

    def __init__(self, request: RequestHead, rules: ResponseRules, request_id: bytes) -> None:
        """Prepare for the response to `request`; `request_id` is echoed."""
        self._request: Final = request
        self._rules: Final = rules
        self._request_id: Final = request_id
        self._out: list[bytes] = []
        self._held: list[bytes] = []
        self._head: ResponseHead | None = None
        self._length = NO_BODY
        self._trailers: list[Field] = []
        self._chunked = False
        self.begun = False
        """Whether the final head has been given out, or is about to be."""
        self.answering = False
        """Whether a part of the final response has been taken, so that no other can be sent in its place."""
        self.complete = False
        """Whether the API's response has arrived whole."""
        self.keep_alive = False
        """Whether the client's connection can serve another request afterwards."""

    @property
    def head(self) -> ResponseHead | None:
        """The API's final head, None before it has arrived."""
        return self._head

    def interim(self, head: ResponseHead) -> None:
        """Pass a 1xx response on, if the client can read it."""
        if self._request.minor_version == 1:
            self._out.append(self._rules.interim(head))

    def arrive(self, head: ResponseHead, length: int) -> None:
        """Take the final head, whose content has `length` (see `ResponseHead.length`)."""
        self._head = head
        self._length = length

    def begin(self, *, reusable: bool) -> None:
        """Give out the final head, and the content that was held.

        `reusable`: as far as the request is concerned, the client's connection can be kept.
        """
        head = self._head
        if head is None:
            return
        self.begun = True
        modern = self._request.minor_version == 1
        unmeasured = self._length < NO_BODY
        chunked = self._chunked = unmeasured and modern
        keep_alive = self.keep_alive = reusable and (modern or not unmeasured)
        self._out += self._rules.rewrite(
            head,
            chunked=chunked,
            connection=b"close" if not keep_alive else b"" if modern else b"keep-alive",
            request_id=self._request_id,
        )
        if self._held:
            held, self._held = self._held, []
            self._out += [encode_chunk(content) for content in held] if chunked else held
        if self.complete and chunked:
            self._end_chunks()

    def switch(self, head: ResponseHead) -> None:
        """Give out a 101: what follows it is the tunnel's."""
        self.begun = True
        self._out.append(self._rules.interim(head))

    def add(self, content: bytes) -> None:
        """Take content."""
        if self.begun:
            self._out.append(encode_chunk(content) if self._chunked else content)
        else:
            self._held.append(content)

    def end(self, trailers: list[Field]) -> None:
        """Take the end of the response."""
        self.complete = True
        self._trailers = trailers
        if self._chunked:
            self._end_chunks()

    def take(self) -> bytes:
        """Return what is to be sent to the client now, perhaps nothing."""
        out = self._out
        if not out:
            return b""
        data = b"".join(out)
        out.clear()
        self.answering = self.begun
        return data

    def drop(self) -> None:
        """Forget the response, none of which was given out: another one will come."""
        self._head = None
        self._held.clear()
        self.complete = False

    def _end_chunks(self) -> None:
        options = self._head.connection_options if self._head is not None else ()
        self._out.append(encode_last_chunk(forwardable_trailers(self._trailers, options)))
