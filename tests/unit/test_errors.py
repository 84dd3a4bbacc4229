"""One tree of exceptions, whose branches name the party at fault."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

import bits_auth_proxy
from bits_auth_proxy.auth.bits_oauth import TokenRequestError
from bits_auth_proxy.errors import (
    OperatorError,
    PeerError,
    ProxyError,
    SettingError,
    TokenEndpointError,
    UpstreamError,
)
from bits_auth_proxy.forward.certificates import CertificateError
from bits_auth_proxy.forward.dialing import DialError
from bits_auth_proxy.forward.egress import TunnelError
from bits_auth_proxy.http1.messages import MalformedMessage
from bits_auth_proxy.settings.credentials import CredentialsError
from bits_auth_proxy.settings.loading import SettingsError


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(bits_auth_proxy.__path__, "bits_auth_proxy."):
        if not found.name.endswith("__main__"):  # it runs the command
            yield importlib.import_module(found.name)


def exceptions_of(module: ModuleType) -> list[type[BaseException]]:
    return [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, BaseException) and each.__module__ == module.__name__
    ]


def test_every_exception_of_the_package_is_in_the_tree() -> None:
    found = [each for module in modules() for each in exceptions_of(module)]
    assert {ProxyError, MalformedMessage, SettingsError} <= set(found)
    assert [each for each in found if not issubclass(each, ProxyError)] == []


@pytest.mark.parametrize(
    ("party", "errors"),
    [
        (OperatorError, (SettingError, SettingsError, CredentialsError, CertificateError)),
        (SettingError, (SettingsError, CredentialsError, CertificateError)),
        (PeerError, (MalformedMessage,)),
        (UpstreamError, (DialError, TunnelError)),
        (TokenEndpointError, (TokenRequestError,)),
    ],
)
def test_each_error_names_its_party(party: type[ProxyError], errors: tuple[type[ProxyError], ...]) -> None:
    assert [each for each in errors if not issubclass(each, party)] == []


def test_no_error_names_two_parties() -> None:
    parties = (OperatorError, PeerError, UpstreamError, TokenEndpointError)
    found = {each for module in modules() for each in exceptions_of(module)}
    assert [each for each in found if sum(issubclass(each, party) for party in parties) > 1] == []
