"""The TLS defaults of other builds and versions of Python than the one that runs the tests."""

import ssl
from typing import Any

import pytest


def suites_of_openssl(monkeypatch: pytest.MonkeyPatch, suites: str = "DEFAULT") -> None:
    """Give every new context the suites of OpenSSL, as Debian's build of Python does."""
    make = ssl.SSLContext.__new__

    def made(cls: type[ssl.SSLContext], *arguments: Any) -> ssl.SSLContext:
        context = make(cls, *arguments)
        context.set_ciphers(suites)
        return context

    monkeypatch.setattr(ssl.SSLContext, "__new__", staticmethod(made))


def verification_of_3_13(monkeypatch: pytest.MonkeyPatch, *, newer: bool = True) -> None:
    """Give every default context the flags of Python 3.13, or those of the versions before it."""
    make = ssl.create_default_context
    added = ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN

    def made(*arguments: Any, **named: Any) -> ssl.SSLContext:
        context = make(*arguments, **named)
        context.verify_flags = context.verify_flags | added if newer else context.verify_flags & ~added
        return context

    monkeypatch.setattr(ssl, "create_default_context", made)
