"""What is refused: the status, the reason, a closed connection, and not a byte to the upstream.

Each row: name, section, bytes in, status, code.
"""

import json

import pytest

from tests.support.bench import Bench, set_up
from tests.unit.forward.test_access import TOKEN_PATHS

H = b"Host: localhost\r\n"
FRAMING = "RFC 9112 6.3"
SYNTAX = "RFC 9112 2.2"
FIELD = "RFC 9112 5"
TARGET = "RFC 9112 3.2"
PATH = "RFC 3986 6"
BROWSER = "Fetch metadata"

REFUSED = [
    # Framing: what two parsers could read differently.
    (
        "CL and TE",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "TE and CL",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "two CL that differ",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "two CL alike",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
        400,
        "bad_framing",
    ),
    ("CL list", FRAMING, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 3, 3\r\n\r\n", 400, "bad_framing"),
    ("CL with plus", FRAMING, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: +3\r\n\r\n", 400, "bad_framing"),
    ("CL negative", FRAMING, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: -3\r\n\r\n", 400, "bad_framing"),
    ("CL hex", FRAMING, b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 0x3\r\n\r\n", 400, "bad_framing"),
    (
        "CL with space inside",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1 2\r\n\r\n",
        400,
        "bad_framing",
    ),
    ("CL empty", FRAMING, b"POST / HTTP/1.1\r\n" + H + b"Content-Length:\r\n\r\n", 400, "bad_framing"),
    (
        "CL overflow",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 99999999999999999999999\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "CL with a decimal point",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 3.0\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "CL with underscore",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1_0\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "TE gzip, chunked",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "TE chunked, gzip",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "TE chunked twice in a list",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "TE twice",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "TE identity",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: identity\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "TE unknown",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: cow\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "TE xchunked",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "TE with parameter",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked;q=1\r\n\r\n",
        400,
        "bad_framing",
    ),
    (
        "TE quoted",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b'Transfer-Encoding: "chunked"\r\n\r\n',
        400,
        "bad_framing",
    ),
    (
        "TE with vertical tab",
        FRAMING,
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
        400,
        None,
    ),
    (
        "TE in HTTP/1.0",
        FRAMING,
        b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n",
        400,
        "bad_framing",
    ),
    # Syntax.
    ("bare LF after the request line", SYNTAX, b"GET / HTTP/1.1\n" + H + b"\r\n", 400, None),
    ("bare LF after a field", SYNTAX, b"GET / HTTP/1.1\r\nHost: localhost\n\r\n", 400, None),
    ("bare LF only", SYNTAX, b"GET / HTTP/1.1\nHost: localhost\n\n", 400, None),
    ("bare CR in a field", SYNTAX, b"GET / HTTP/1.1\r\n" + H + b"X: a\rb\r\n\r\n", 400, "bad_syntax"),
    ("bare CR in the request line", SYNTAX, b"GET /\r HTTP/1.1\r\n" + H + b"\r\n", 400, None),
    ("obs-fold", FIELD, b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n", 400, "bad_syntax"),
    ("obs-fold with tab", FIELD, b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n\tb\r\n\r\n", 400, "bad_syntax"),
    ("space before the first field", FIELD, b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", 400, None),
    ("space before colon", FIELD, b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400, None),
    (
        "space before colon of TE",
        FIELD,
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding : chunked\r\n\r\n",
        400,
        None,
    ),
    ("tab before colon", FIELD, b"GET / HTTP/1.1\r\n" + H + b"X\t: a\r\n\r\n", 400, None),
    ("NUL in a value", FIELD, b"GET / HTTP/1.1\r\n" + H + b"X: a\x00b\r\n\r\n", 400, "bad_syntax"),
    ("NUL in a name", FIELD, b"GET / HTTP/1.1\r\n" + H + b"X\x00Y: a\r\n\r\n", 400, None),
    ("control byte in a value", FIELD, b"GET / HTTP/1.1\r\n" + H + b"X: a\x01b\r\n\r\n", 400, None),
    ("DEL in a value", FIELD, b"GET / HTTP/1.1\r\n" + H + b"X: a\x7fb\r\n\r\n", 400, None),
    ("no colon", FIELD, b"GET / HTTP/1.1\r\n" + H + b"nonsense\r\n\r\n", 400, None),
    ("empty field name", FIELD, b"GET / HTTP/1.1\r\n" + H + b": a\r\n\r\n", 400, None),
    ("field name with @", FIELD, b"GET / HTTP/1.1\r\n" + H + b"X@Y: a\r\n\r\n", 400, None),
    ("field name with a byte above 0x7f", FIELD, b"GET / HTTP/1.1\r\n" + H + b"X\xe9: a\r\n\r\n", 400, None),
    ("HTTP/0.9", "RFC 9112 2.3", b"GET /\r\n\r\n", 400, None),
    ("HTTP/2.0 in the line", "RFC 9112 2.3", b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505, "unknown_version"),
    ("HTTP/1.2", "RFC 9112 2.3", b"GET / HTTP/1.2\r\n" + H + b"\r\n", 505, "unknown_version"),
    ("HTTP/2 preface", "RFC 9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 501, "unknown_method"),
    ("lower-case protocol", "RFC 9112 2.3", b"GET / http/1.1\r\n" + H + b"\r\n", 400, None),
    ("RTSP", "RFC 9112 2.3", b"OPTIONS / RTSP/1.0\r\n" + H + b"\r\n", 400, None),
    ("ICE", "RFC 9112 2.3", b"SOURCE / ICE/1.0\r\n" + H + b"\r\n", 400, "bad_syntax"),
    *(
        (
            f"{method} in HTTP",
            "RFC 9110 9.1",
            f"{method} / HTTP/1.1\r\n".encode() + H + b"\r\n",
            501,
            "unknown_method",
        )
        for method in (
            # Of RTSP, of ICE, of HTTP/2, of extensions and of nobody.
            "ANNOUNCE",
            "DESCRIBE",
            "FLUSH",
            "GET_PARAMETER",
            "PAUSE",
            "PLAY",
            "RECORD",
            "REDIRECT",
            "SETUP",
            "SET_PARAMETER",
            "TEARDOWN",
            "SOURCE",
            "PRI",
            "M-SEARCH",
            "QUERY",
            "LOCK",
            "Post",
            "X",
            "GE",
            "GETT",
            "!#$%&'*+-.^_`|~9",
        )
    ),
    ("two spaces in the request line", "RFC 9112 3", b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400, None),
    ("space behind the version", "RFC 9112 3", b"GET / HTTP/1.1 \r\n" + H + b"\r\n", 400, None),
    ("a word too many", "RFC 9112 3", b"GET / x HTTP/1.1\r\n" + H + b"\r\n", 400, None),
    (
        "TLS on a plain port",
        SYNTAX,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        400,
        "bad_syntax",
    ),
    ("unknown method", "RFC 9110 9.1", b"BREW / HTTP/1.1\r\n" + H + b"\r\n", 501, "unknown_method"),
    ("lower-case method", "RFC 9110 9.1", b"get / HTTP/1.1\r\n" + H + b"\r\n", 501, "unknown_method"),
    ("WebDAV method", "RFC 9110 9.1", b"PROPFIND / HTTP/1.1\r\n" + H + b"\r\n", 501, "unknown_method"),
    ("PURGE", "RFC 9110 9.1", b"PURGE / HTTP/1.1\r\n" + H + b"\r\n", 501, "unknown_method"),
    ("method that is no token", "RFC 9110 9.1", b"G(T / HTTP/1.1\r\n" + H + b"\r\n", 400, "bad_syntax"),
    (
        "CONNECT",
        "RFC 9110 9.3.6",
        b"CONNECT api.bits.bi:443 HTTP/1.1\r\n" + H + b"\r\n",
        405,
        "method_not_allowed",
    ),
    ("TRACE", "RFC 9110 9.3.8", b"TRACE / HTTP/1.1\r\n" + H + b"\r\n", 405, "method_not_allowed"),
    (
        "other expectation",
        "RFC 9110 10.1.1",
        b"POST / HTTP/1.1\r\n" + H + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\n",
        417,
        "unknown_expectation",
    ),
    # Limits.
    (
        "request line too long",
        "414",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + H + b"\r\n",
        414,
        "target_too_long",
    ),
    ("request line without an end", "414", b"GET /" + b"a" * 9000, 414, "target_too_long"),
    (
        "head too large",
        "RFC 6585 5",
        b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 40_000 + b"\r\n\r\n",
        431,
        "head_too_large",
    ),
    (
        "head without an end",
        "RFC 6585 5",
        b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 40_000,
        431,
        "head_too_large",
    ),
    (
        "too many fields",
        "RFC 6585 5",
        b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n" * 100 + b"\r\n",
        431,
        "head_too_large",
    ),
    # Host and target.
    ("no Host", TARGET, b"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
    ("two Hosts", TARGET, b"GET / HTTP/1.1\r\n" + H + H + b"\r\n", 400, "bad_host"),
    ("two Hosts that differ", TARGET, b"GET / HTTP/1.1\r\n" + H + b"Host: evil\r\n\r\n", 400, "bad_host"),
    ("empty Host", TARGET, b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "bad_host"),
    ("Host with a path", TARGET, b"GET / HTTP/1.1\r\nHost: localhost/x\r\n\r\n", 400, "bad_host"),
    ("Host with user information", TARGET, b"GET / HTTP/1.1\r\nHost: a@localhost\r\n\r\n", 400, "bad_host"),
    ("Host with a space", TARGET, b"GET / HTTP/1.1\r\nHost: local host\r\n\r\n", 400, "bad_host"),
    ("Host list", TARGET, b"GET / HTTP/1.1\r\nHost: localhost, evil\r\n\r\n", 400, "bad_host"),
    ("foreign Host", "421", b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "misdirected"),
    (
        "foreign Host that begins well",
        "421",
        b"GET / HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n",
        421,
        "misdirected",
    ),
    (
        "foreign Host with our port",
        "421",
        b"GET / HTTP/1.1\r\nHost: evil.example:8080\r\n\r\n",
        421,
        "misdirected",
    ),
    ("a private address as Host", "421", b"GET / HTTP/1.1\r\nHost: 192.168.0.1\r\n\r\n", 421, "misdirected"),
    (
        "foreign authority in absolute form",
        TARGET,
        b"GET http://evil.example/ HTTP/1.1\r\n" + H + b"\r\n",
        421,
        "misdirected",
    ),
    (
        "absolute form with user information",
        TARGET,
        b"GET http://a@localhost/ HTTP/1.1\r\n" + H + b"\r\n",
        400,
        "bad_target",
    ),
    (
        "absolute form of another scheme",
        TARGET,
        b"GET ftp://localhost/ HTTP/1.1\r\n" + H + b"\r\n",
        400,
        "bad_target",
    ),
    ("fragment", TARGET, b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n", 400, "bad_target"),
    (
        "fragment in absolute form",
        TARGET,
        b"GET http://localhost/#x HTTP/1.1\r\n" + H + b"\r\n",
        400,
        "bad_target",
    ),
    ("GET *", TARGET, b"GET * HTTP/1.1\r\n" + H + b"\r\n", 400, "bad_target"),
    ("target without a slash", TARGET, b"GET v1/x HTTP/1.1\r\n" + H + b"\r\n", 400, None),
    ("byte above 0x7f in the path", TARGET, b"GET /\xe9 HTTP/1.1\r\n" + H + b"\r\n", 400, "bad_target"),
    (
        "byte above 0x7f before the query",
        TARGET,
        b"GET /\xe9?q HTTP/1.1\r\n" + H + b"\r\n",
        400,
        "bad_target",
    ),
    ("control byte in the query", TARGET, b"GET /?q=\x01 HTTP/1.1\r\n" + H + b"\r\n", 400, "bad_syntax"),
    ("tab in the query", TARGET, b"GET /?q=\t HTTP/1.1\r\n" + H + b"\r\n", 400, "bad_target"),
    ("encoded byte that is no UTF-8", PATH, b"GET /caf%E9 HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    (
        "Max-Forwards that is no number",
        "RFC 9110 7.6.2",
        b"OPTIONS / HTTP/1.1\r\n" + H + b"Max-Forwards: -1\r\n\r\n",
        400,
        "bad_field",
    ),
    (
        "Max-Forwards of two opinions",
        "RFC 9110 7.6.2",
        b"OPTIONS / HTTP/1.1\r\n" + H + b"Max-Forwards: 0\r\nMax-Forwards: 5\r\n\r\n",
        400,
        "bad_field",
    ),
    (
        "TRACE with Max-Forwards",
        "RFC 9110 7.6.2",
        b"TRACE / HTTP/1.1\r\n" + H + b"Max-Forwards: 0\r\n\r\n",
        405,
        "method_not_allowed",
    ),
    # Paths that the next reader could read differently.
    ("dot segment", PATH, b"GET /v1/../x HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("single dot segment", PATH, b"GET /v1/./x HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("dot segment at the end", PATH, b"GET /v1/.. HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("encoded dots", PATH, b"GET /v1/%2e%2e/x HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("half-encoded dots", PATH, b"GET /v1/.%2E/x HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("empty segment", PATH, b"GET /v1//x HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("two slashes first", PATH, b"GET //evil.example/x HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("encoded slash", PATH, b"GET /v1%2fx HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("backslash", PATH, b"GET /v1\\x HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("encoded backslash", PATH, b"GET /v1%5Cx HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("semicolon", PATH, b"GET /v1;a=b/x HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("encoded semicolon", PATH, b"GET /v1%3Bx HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("encoded letter", PATH, b"GET /%76%31/x HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("encoded percent", PATH, b"GET /v1/%2561 HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("encoded NUL", PATH, b"GET /v1/%00 HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("encoded line break", PATH, b"GET /v1/%0d%0a HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("broken encoding", PATH, b"GET /v1/%zz HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    ("cut encoding", PATH, b"GET /v1/% HTTP/1.1\r\n" + H + b"\r\n", 400, "ambiguous_path"),
    # The token endpoint.
    (
        "token endpoint",
        "access",
        b"POST /v1/oauth2/token HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n",
        403,
        "denied",
    ),
    (
        "token endpoint in capitals",
        "access",
        b"POST /V1/OAuth2/Token HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n",
        403,
        "denied",
    ),
    (
        "token endpoint with a query",
        "access",
        b"POST /v1/oauth2/token?x HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n",
        403,
        "denied",
    ),
    (
        "token endpoint in absolute form",
        "access",
        b"POST http://localhost/v1/oauth2/token HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n",
        403,
        "denied",
    ),
    (
        "token endpoint with a slash behind",
        "access",
        b"POST /v1/oauth2/token/ HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n",
        403,
        "denied",
    ),
    ("anything below oauth2", "access", b"GET /oauth2/revoke HTTP/1.1\r\n" + H + b"\r\n", 403, "denied"),
    (
        "userinfo by POST",
        "access",
        b"POST /oauth2/userinfo HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n",
        403,
        "denied",
    ),
    (
        "oauth2 spelt with an encoded letter",
        "access",
        b"POST /v1/%6fauth2/token HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n",
        400,
        "ambiguous_path",
    ),
    # Pages in browsers.
    (
        "foreign Origin",
        BROWSER,
        b"POST / HTTP/1.1\r\n" + H + b"Origin: https://evil.example\r\nContent-Length: 0\r\n\r\n",
        403,
        "cross_site",
    ),
    ("Origin null", BROWSER, b"GET / HTTP/1.1\r\n" + H + b"Origin: null\r\n\r\n", 403, "cross_site"),
    (
        "our own Origin",
        BROWSER,
        b"GET / HTTP/1.1\r\n" + H + b"Origin: http://localhost\r\n\r\n",
        403,
        "cross_site",
    ),
    ("empty Origin", BROWSER, b"GET / HTTP/1.1\r\n" + H + b"Origin:\r\n\r\n", 403, "cross_site"),
    (
        "cross-site",
        BROWSER,
        b"GET / HTTP/1.1\r\n" + H + b"Sec-Fetch-Site: cross-site\r\n\r\n",
        403,
        "cross_site",
    ),
    (
        "same-site",
        BROWSER,
        b"GET / HTTP/1.1\r\n" + H + b"Sec-Fetch-Site: Same-Site\r\n\r\n",
        403,
        "cross_site",
    ),
    ("two Origins", BROWSER, b"GET / HTTP/1.1\r\n" + H + b"Origin: a\r\nOrigin: b\r\n\r\n", 400, "bad_field"),
    # Chunks: the head is fine, the body is not.
    (
        "chunk size that is no number",
        "RFC 9112 7.1",
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        400,
        "bad_chunk",
    ),
    (
        "chunk size with 0x",
        "RFC 9112 7.1",
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        400,
        "bad_chunk",
    ),
    (
        "negative chunk size",
        "RFC 9112 7.1",
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        400,
        "bad_chunk",
    ),
    (
        "chunk size overflow",
        "RFC 9112 7.1",
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        400,
        "bad_chunk",
    ),
    (
        "chunk longer than its size",
        "RFC 9112 7.1",
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        400,
        "bad_chunk",
    ),
    (
        "bare LF behind a chunk size",
        "RFC 9112 7.1",
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        400,
        "bad_chunk",
    ),
    (
        "no CRLF behind a chunk",
        "RFC 9112 7.1",
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc0\r\n\r\n",
        400,
        "bad_chunk",
    ),
]


@pytest.mark.parametrize(
    ("sent", "status", "code"), [row[2:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
async def test_refused(bench: Bench, sent: bytes, status: int | None, code: str | None) -> None:
    async with bench.connect() as client:
        await client.send(sent)
        answer = await client.answer()
        assert status is None or answer.status == status
        assert answer.status >= 400
        problem = json.loads(answer.body)
        assert problem["status"] == answer.status
        assert code is None or problem["code"] == code
        assert answer.field(b"Content-Type") == b"application/problem+json"
        assert (answer.field(b"Proxy-Status") or b"").startswith(b"bits-auth-proxy; error=")
        assert answer.field(b"Connection") == b"close"
        assert await client.is_closed()
    # A body may prove wrong after the head has gone up; then the request there has no end.
    whole = [request for request in bench.upstream.requests if request[1].endswith(b"0\r\n\r\n")]
    assert whole == []
    if code != "bad_chunk":
        assert bench.upstream.requests == []


async def test_a_refusal_in_a_pipeline_comes_behind_the_earlier_answers(bench: Bench) -> None:
    async with bench.connect() as client:
        good = b"GET /v1/x HTTP/1.1\r\n" + H + b"\r\n"
        await client.send(good + good + b"GET / HTTP/1.1\r\n\r\n" + good)
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 400]
        assert await client.is_closed()
    assert len(bench.upstream.requests) == 2


async def test_a_refused_head_request_has_no_body(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(b"HEAD /v1/../x HTTP/1.1\r\n" + H + b"\r\n")
        answer = await client.answer(b"HEAD")
        assert answer.status == 400
        assert await client.is_closed()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/v1/applications.create", 200),
        (b"/v1/applications.createX", 403),
        (b"/v1/Applications.create", 403),
        (b"/v1/applications.get", 403),
        (b"/v2/any/thing.list", 200),
        (b"/v2", 403),
        (b"/v2/oauth2/token", 403),
    ],
)
async def test_the_allow_list_is_all_that_passes(path: bytes, status: int) -> None:
    async with set_up(BITS_ALLOW="POST /v1/applications.create, * /v2/*") as bench, bench.connect() as client:
        await client.send(b"POST " + path + b" HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n")
        answer = await client.answer()
        assert answer.status == status
        assert len(bench.upstream.requests) == (status == 200)


async def test_a_body_above_its_limit_is_refused_by_length_and_by_count() -> None:
    async with set_up(BITS_MAX_BODY_BYTES="10") as bench:
        for sent in (
            b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 11\r\n\r\n",
            b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n\r\n",
        ):
            async with bench.connect() as client:
                await client.send(sent)
                answer = await client.answer()
                assert (answer.status, json.loads(answer.body)["code"]) == (413, "body_too_large")
                assert await client.is_closed()
        async with bench.connect() as client:
            await client.send(b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 10\r\n\r\n1234567890")
            assert (await client.answer()).status == 200


async def test_a_body_that_turns_out_too_large_never_reaches_the_api_whole() -> None:
    head = b"POST /v1/applications.create HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n"
    async with set_up(BITS_MAX_BODY_BYTES="10") as bench, bench.connect() as client:
        await client.send(head + b"5\r\n12345\r\n")
        await bench.upstream.arrived.wait()
        await client.send(b"6\r\n678901\r\n0\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (413, "body_too_large")
        await bench.upstream.gone.wait()
        # The API got the head and no whole body.
        assert [body for _, body in bench.upstream.requests] == [b""]


async def test_an_allowed_origin_and_an_allowed_host_pass() -> None:
    async with (
        set_up(BITS_ALLOWED_ORIGINS="https://App.example", BITS_ALLOWED_HOSTS="bits.internal") as bench,
        bench.connect() as client,
    ):
        await client.send(
            b"GET / HTTP/1.1\r\nHost: bits.internal:80\r\nOrigin: https://app.example:443\r\n\r\n"
        )
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_no_spelling_of_the_token_endpoint_reaches_the_api(bench: Bench, method: bytes) -> None:
    for path in TOKEN_PATHS:
        async with bench.connect() as client:
            await client.send(method + b" " + path + b" HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n")
            answer = await client.answer()
            assert answer.status in (400, 403, 421), path
            assert await client.is_closed()
    assert bench.upstream.requests == []
