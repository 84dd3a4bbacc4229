"""Turns the heads, content and trailers of one response from the API into bytes to send to the client.

Content that arrives before `begin` is held, so that a 401 can wait until it is known whether another token
helps.
"""

from typing import Final, final

from bits_auth_proxy.forward.headers import ResponseRules, cross_origin_fields, forwardable_trailers
from bits_auth_proxy.http1.messages import NO_BODY, Field, RequestHead, ResponseHead
from bits_auth_proxy.http1.serializing import encode_chunk, encode_last_chunk


@final
class ResponseRelay:
    """One response. `take` returns the bytes to write; call it once at the end of each read."""

    __slots__ = (
        "_chunked",
        "_held",
        "_out",
        "_request",
        "_request_id",
        "_rules",
        "_trailers",
        "answering",
        "begun",
        "complete",
        "head",
        "keep_alive",
        "length",
    )

    # These are set together with `head`, and not before, because a relay should cost little.
    length: int
    """The length of the final response's content: `ResponseHead.length`, corrected for a response to HEAD."""
    keep_alive: bool
    """Whether the client's connection can serve another request after this response."""
    _held: list[bytes]
    _trailers: list[Field]

    def __init__(self, request: RequestHead, rules: ResponseRules, request_id: bytes) -> None:
        """Prepare for the response to `request`; `request_id` is echoed."""
        self._request: Final = request
        self._rules: Final = rules
        self._request_id: Final = request_id
        self._out: list[bytes] = []
        self._chunked = False
        self.head: ResponseHead | None = None
        """The API's final head, or None before it has arrived."""
        self.begun = False
        """Whether the final head has been passed on."""
        self.answering = False
        """Whether a part of the final response has been taken, so that no other can be sent in its place."""
        self.complete = False
        """Whether the API's response has arrived whole."""

    def interim(self, head: ResponseHead) -> None:
        """Pass a 1xx response on, if the client can read it."""
        if self._request.minor_version == 1:
            self._out.append(self._rules.interim(head))

    def hold(self, head: ResponseHead, length: int) -> None:
        """Take the final head, and hold it and its content until `begin` or `drop`."""
        self.head, self.length = head, length
        self._held = []
        self._trailers = []

    def begin(self, head: ResponseHead, length: int, *, reusable: bool, date_line: bytes) -> None:
        """Pass on the final head, and the content that was held.

        `reusable` says whether the client's connection can be kept, as far as the request is concerned.
        `date_line` is for a response without a Date.
        """
        held = self._held if self.head is not None else ()
        self.head, self.length = head, length
        self.begun = True
        modern = self._request.minor_version == 1
        unmeasured = length < NO_BODY
        chunked = self._chunked = unmeasured and modern
        keep_alive = self.keep_alive = reusable and (modern or not unmeasured)
        # Few requests come from a page, and most responses should not pay for these.
        readable = b"origin" in self._request.by_name and b"access-control-allow-origin" not in head.by_name
        self._out += self._rules.rewrite(
            head,
            chunked=chunked,
            connection=b"close" if not keep_alive else b"" if modern else b"keep-alive",
            request_id=self._request_id,
            date_line=date_line,
            cross_origin=cross_origin_fields(self._request) if readable else b"",
        )
        for content in held:
            self.add(content)
        if self.complete:
            self.end(self._trailers)

    def switch(self, head: ResponseHead) -> None:
        """Pass on a 101. What follows it belongs to the tunnel."""
        self.head = head
        self.keep_alive = False
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
        if self._chunked:
            options = self.head.connection_options if self.head is not None else frozenset()
            self._out.append(encode_last_chunk(forwardable_trailers(trailers, options)))
        elif not self.begun:
            self._trailers = trailers

    def take(self) -> bytes:
        """Return the bytes to send to the client now, which may be none."""
        out = self._out
        if not out:
            return b""
        self.answering = self.begun
        data = b"".join(out)
        out.clear()
        return data

    def holds(self, words: bytes) -> bool:
        """Return whether the content that is held contains `words`."""
        return words in b"".join(self._held)

    def drop(self) -> None:
        """Drop the response that was held, because another one will come."""
        self.head = None
        self.complete = False
