"""The tree of exceptions. Its branches name the party at fault.

    ProxyError
      OperatorError                the operator must change something
        SettingError               a setting or the file that it names: SettingsError, CredentialsError,
                                   CertificateError
      PeerError                    a client or the API broke HTTP: MalformedMessage
      UpstreamError                the API or the way to it failed: DialError, TunnelError
      TokenEndpointError           the token endpoint or the way to it failed: TokenRequestError

Every exception that the proxy raises on purpose descends from these. The texts are safe to show: they never
hold a secret, a token or a body.
"""

import os
import re


class ProxyError(Exception):
    """Base of all errors that are raised on purpose."""


class OperatorError(ProxyError):
    """The operator must change something: a setting, a file, an address that is in use."""


class SettingError(OperatorError):
    """A setting, or the file that it names, can't be used. The text names the variable."""


class PeerError(ProxyError):
    """The peer that sent an HTTP message, be it a client or the API, broke the protocol."""


class UpstreamError(ProxyError):
    """The Bits API, or the way to it, failed."""


class TokenEndpointError(ProxyError):
    """The token endpoint, or the way to it, failed, or the endpoint denied the request."""


def reason_of(error: OSError) -> str:
    """Return what `error` means, in the system's own words where they are clear, without addresses."""
    # The health check and the parsers load this module, and should load neither of these.
    import socket  # noqa: PLC0415
    import ssl  # noqa: PLC0415

    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason or "handshake failed"
    if isinstance(error, socket.gaierror):
        return error.strerror or "failed"
    if error.errno:
        return os.strerror(error.errno)
    # Where addresses failed for different reasons, aiohappyeyeballs joins their messages.
    causes = dict.fromkeys(re.findall(r"\[Errno ([0-9]+)\]", str(error)))
    if causes:
        return ", ".join(os.strerror(int(number)) for number in causes)
    if isinstance(error, ConnectionError):
        return "the connection was closed"
    return error.strerror or "failed"
