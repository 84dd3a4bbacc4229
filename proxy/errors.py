"""Exceptions that name the party at fault.

Every exception the proxy raises on purpose descends from one of these. Texts are safe to show: they
never hold a secret, a token or a body.
"""


class ProxyError(Exception):
    """Base of all errors raised on purpose."""


class OperatorError(ProxyError):
    """The operator must change something: a setting, a file, an address in use."""


class ClientError(ProxyError):
    """The client that called the proxy sent something that can't be accepted."""


class UpstreamError(ProxyError):
    """The Bits API, or the way to it, failed."""


class TokenEndpointError(ProxyError):
    """The token endpoint, or the way to it, failed or refused."""
