"""Exceptions that name the party at fault.

Every exception the proxy raises on purpose descends from one of these. Texts are safe to show: they
never hold a secret, a token or a body.
"""

import os
import socket
import ssl


class ProxyError(Exception):
    """Base of all errors raised on purpose."""


class OperatorError(ProxyError):
    """The operator must change something: a setting, a file, an address in use."""


class SettingError(OperatorError):
    """A setting, or the file that it names, can't be used; the text names the variable."""


class PeerError(ProxyError):
    """The peer that sent an HTTP message, be it a client or the API, broke the protocol."""


class UpstreamError(ProxyError):
    """The Bits API, or the way to it, failed."""


class TokenEndpointError(ProxyError):
    """The token endpoint, or the way to it, failed or refused."""


def reason_of(error: OSError) -> str:
    """Return what the system says about `error`, in its own words and without addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason or "handshake failed"
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or "failed"
    return os.strerror(error.errno)
