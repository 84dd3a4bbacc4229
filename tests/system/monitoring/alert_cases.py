"""For each alert, series for which it fires and series for which it must not."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

_ONE = 'instance="pod-1:9090",job="bits"'
_JOB = 'job="bits",namespace="shop"'


class Case(NamedTuple):
    """Series with a sample each minute, in promtool's notation, and the alert `minutes` after the first."""

    alert: str
    what: str
    series: dict[str, str]
    minutes: int
    summary: str = ""
    """The summary of the alert that fires, or empty if none does."""
    labels: Mapping[str, str] = MappingProxyType({"instance": "pod-1:9090", "job": "bits"})


def _series(**values: str) -> dict[str, str]:
    return {f"bits_proxy_{name}{{{_ONE}}}": value for name, value in values.items()}


def _state(**values: str) -> dict[str, str]:
    states = {
        "absent": "0x30",
        "fresh": "0x30",
        "stale": "0x30",
        "suspect": "0x30",
        "expired": "0x30",
        **values,
    }
    return {f'bits_proxy_token_state{{{_ONE},state="{name}"}}': value for name, value in states.items()}


def _problems(**values: str) -> dict[str, str]:
    problems = {"token_unavailable": "0x30", "credentials_refused": "0x30", "overloaded": "0x30", **values}
    return {
        f'bits_proxy_request_problems_total{{{_ONE},problem="{name}"}}': value
        for name, value in problems.items()
    }


def _requests(**values: str) -> dict[str, str]:
    """Requests by status (`s200` for 200), from two pods."""
    return {
        f'bits_proxy_requests_total{{instance="{pod}",{_JOB},operation="x",status="{name[1:]}"}}': value
        for name, value in values.items()
        for pod in ("pod-1:9090", "pod-2:9090")
    }


def _connects(**values: str) -> dict[str, str]:
    outcomes = {"ok": "0x30", "connection_refused": "0x30", "dns_error": "0x30", **values}
    return {
        f'bits_proxy_upstream_connects_total{{{_ONE},outcome="{name}"}}': value
        for name, value in outcomes.items()
    }


def _upstream_seconds(fast: str, slow: str) -> dict[str, str]:
    """Responses that took less than 0.1 s, and responses that took between 5 and 10 s."""
    name = f'bits_proxy_upstream_duration_seconds_bucket{{instance="pod-1:9090",{_JOB},operation="x"'
    return {
        f'{name},le="0.1"}}': fast,
        f'{name},le="5.0"}}': fast,
        f'{name},le="10.0"}}': slow,
        f'{name},le="+Inf"}}': slow,
    }


def _active(value: str) -> dict[str, str]:
    return {
        f'bits_proxy_upstream_connections{{{_ONE},state="active"}}': value,
        f'bits_proxy_upstream_connections{{{_ONE},state="idle"}}': "3x30",
        **_series(upstream_connections_limit="100x30"),
    }


_BUILD = {f'bits_proxy_build_info{{{_ONE},python="3.13.0",version="1.0.0"}}': "1x90"}
_ANOTHERS = {'process_cpu_seconds_total{instance="db:9100",job="db"}': "0+60x30"}
_NAMESPACED = {"namespace": "shop", "job": "bits"}

CASES = (
    Case(
        "BitsProxyNoValidToken",
        "the token has expired",
        _state(fresh="1x4 0x30", expired="0x4 1x30"),
        7,
        "pod-1:9090 has no valid token",
    ),
    Case(
        "BitsProxyNoValidToken",
        "there has never been one",
        _state(absent="1x30"),
        2,
        "pod-1:9090 has no valid token",
    ),
    Case(
        "BitsProxyNoValidToken", "the first token takes a moment", _state(absent="1 0x30", fresh="0 1x30"), 1
    ),
    Case("BitsProxyNoValidToken", "a token that is due still serves", _state(stale="1x30"), 20),
    Case(
        "BitsProxyCallsWithoutToken",
        "calls fail for want of a token",
        _problems(token_unavailable="0 0 10x30"),
        3,
        "pod-1:9090 failed 10 requests because it had no token",
    ),
    Case(
        "BitsProxyCallsWithoutToken",
        "calls fail because the credentials are refused",
        _problems(credentials_refused="0 0 10x30"),
        3,
        "pod-1:9090 failed 10 requests because it had no token",
    ),
    Case("BitsProxyCallsWithoutToken", "it is long over", _problems(token_unavailable="0 0 10x30"), 10),
    Case("BitsProxyCallsWithoutToken", "calls fail of something else", _problems(overloaded="0+5x30"), 10),
    Case(
        "BitsProxyTokenExpiresSoon",
        "a tenth of its life is left and the refresh fails",
        _series(
            token_issued_timestamp_seconds="-2613x30",
            token_expires_timestamp_seconds="957x30",
            token_refresh_consecutive_failures="5x30",
        ),
        10,
        "pod-1:9090: 10% of the token's life is left",
    ),
    Case(
        "BitsProxyTokenExpiresSoon",
        "the refresh fails, but much is left",
        _series(
            token_issued_timestamp_seconds="0x30",
            token_expires_timestamp_seconds="3570x30",
            token_refresh_consecutive_failures="5x30",
        ),
        45,
    ),
    Case(
        "BitsProxyTokenExpiresSoon",
        "little is left and nothing has failed",
        _series(
            token_issued_timestamp_seconds="-2613x30",
            token_expires_timestamp_seconds="957x30",
            token_refresh_consecutive_failures="0x30",
        ),
        10,
    ),
    Case(
        "BitsProxyTokenRefreshFailing",
        "three failures in a row, and no end",
        _series(token_refresh_consecutive_failures="0 1 3x30"),
        5,
        "pod-1:9090: 3 token requests in a row have failed",
    ),
    Case(
        "BitsProxyTokenRefreshFailing",
        "a hiccup",
        _series(token_refresh_consecutive_failures="0 1 3 0x30"),
        5,
    ),
    Case(
        "BitsProxyCredentialsRefused",
        "refused for good",
        _series(token_credentials_refused="0 1x30"),
        3,
        "pod-1:9090: the token endpoint denies the token requests",
    ),
    Case("BitsProxyCredentialsRefused", "all is well", _series(token_credentials_refused="0x30"), 20),
    Case(
        "BitsProxyCandidateStuck",
        "a new pair is not taken",
        _series(credentials_candidate_timestamp_seconds="_x4 300x30"),
        10,
        "pod-1:9090: new credentials have failed for 5m 0s",
    ),
    Case(
        "BitsProxyCandidateStuck",
        "another new pair is not taken either",
        _series(credentials_candidate_timestamp_seconds="_x4 300x2 420x30"),
        11,
        "pod-1:9090: new credentials have failed for 4m 0s",
    ),
    Case(
        "BitsProxyCandidateStuck",
        "the token endpoint is down for two minutes during a rotation",
        _series(credentials_candidate_timestamp_seconds="_x4 300x1 stale"),
        7,
    ),
    Case("BitsProxyCandidateStuck", "there is no new pair", _series(token_credentials_refused="0x30"), 20),
    Case(
        "BitsProxyCredentialsUnreadable",
        "the mount is gone",
        _series(credentials_read_failures_total="0x5 0+12x30"),
        20,
        "pod-1:9090 can't read its credential files",
    ),
    Case(
        "BitsProxyCredentialsUnreadable",
        "a rotation in the middle of a look",
        _series(credentials_read_failures_total="0x5 1x30"),
        20,
    ),
    Case(
        "BitsProxyTokenRefreshSlow",
        "one refresh in the hour, and it took 4 s",
        _series(
            token_refresh_duration_seconds_sum="0.2x20 4.2x90",
            token_refresh_duration_seconds_count="1x20 2x90",
        ),
        40,
        "pod-1:9090: token requests take 4s",
    ),
    Case(
        "BitsProxyTokenRefreshSlow",
        "one refresh in the hour, and it took 0.2 s",
        _series(
            token_refresh_duration_seconds_sum="0.2x20 0.4x90",
            token_refresh_duration_seconds_count="1x20 2x90",
        ),
        40,
    ),
    Case(
        "BitsProxyTokenRefreshSlow",
        "no refresh in the hour",
        _series(
            token_refresh_duration_seconds_sum="9x90",
            token_refresh_duration_seconds_count="1x90",
        ),
        80,
    ),
    Case(
        "BitsProxyTokenRefusedByApi",
        "every new token is refused",
        _series(token_refused_total="0+1x90", tokens_refused_early_total="0x90"),
        35,
        "pod-1:9090: 30 tokens got a 401 before they expired",
    ),
    Case("BitsProxyTokenRefusedByApi", "a revocation", _series(token_refused_total="0x10 1x90"), 30),
    Case(
        "BitsProxyTokenRefusedByApi",
        "the other alert says more",
        _series(token_refused_total="0+1x90", tokens_refused_early_total="0x3 0+1x90"),
        35,
    ),
    Case(
        "BitsProxyTokensRefusedEarly",
        "the third token in a row dies early",
        _series(token_refused_total="0 1 2 3x30", tokens_refused_early_total="0 0 0 1x30"),
        5,
        "pod-1:9090: the API stops accepting tokens early, again and again",
    ),
    Case(
        "BitsProxyTokensRefusedEarly",
        "two tokens die early",
        _series(token_refused_total="0 1 2x30", tokens_refused_early_total="0x30"),
        5,
    ),
    Case(
        "BitsProxyTokensRefusedEarly",
        "it is long over",
        _series(tokens_refused_early_total="0 0 0 1x90"),
        40,
    ),
    Case(
        "BitsProxyUpstreamErrors",
        "a tenth of the calls fails",
        _requests(s200="0+90x30", s502="0+10x30"),
        12,
        "bits: 10% of the requests to the Bits API fail",
        _NAMESPACED,
    ),
    Case("BitsProxyUpstreamErrors", "one in a hundred fails", _requests(s200="0+99x30", s503="0+1x30"), 20),
    Case("BitsProxyUpstreamErrors", "clients do wrong", _requests(s200="0+10x30", s404="0+50x30"), 20),
    Case(
        "BitsProxyUpstreamErrors",
        "the only call of the hour fails",
        _requests(s200="0x30", s503="0x5 1x30"),
        8,
    ),
    Case(
        "BitsProxyUpstreamUnreachable",
        "each attempt to connect fails",
        _connects(ok="1x30", connection_refused="0x5 0+2x30"),
        15,
        "pod-1:9090 can't connect to the Bits API",
    ),
    Case(
        "BitsProxyUpstreamUnreachable",
        "some attempts fail",
        _connects(ok="0+1x30", connection_refused="0+2x30"),
        15,
    ),
    Case("BitsProxyUpstreamUnreachable", "nobody connects", _connects(ok="3x30"), 15),
    Case(
        "BitsProxyUpstreamSlow",
        "half of the answers take seconds",
        _upstream_seconds("0+50x60", "0+100x60"),
        25,
        "bits: one request in twenty waits 9.5s",
        _NAMESPACED,
    ),
    Case("BitsProxyUpstreamSlow", "one in a hundred does", _upstream_seconds("0+99x60", "0+100x60"), 25),
    Case(
        "BitsProxyUpstreamConnectionsSaturated",
        "nearly all are in use",
        _active("10x3 95x30"),
        10,
        "pod-1:9090 uses 95% of its upstream connections",
    ),
    Case("BitsProxyUpstreamConnectionsSaturated", "half are", _active("50x30"), 20),
    Case("BitsProxyUpstreamConnectionsSaturated", "for a moment all are", _active("10x3 100x2 10x30"), 6),
    Case(
        "BitsProxyOverloaded",
        "calls find the queue full",
        _problems(overloaded="0 0 10x30"),
        3,
        "pod-1:9090 had no upstream connection for 10 requests",
    ),
    Case("BitsProxyOverloaded", "none does", _problems(token_unavailable="0+9x30"), 10),
    Case(
        "BitsProxyClientConnectionsSaturated",
        "nearly all places are taken",
        _series(client_connections="950x30", client_connections_limit="1000x30"),
        6,
        "pod-1:9090 uses 95% of its client connections",
    ),
    Case(
        "BitsProxyClientConnectionsSaturated",
        "half are",
        _series(client_connections="500x30", client_connections_limit="1000x30"),
        20,
    ),
    Case(
        "BitsProxyCpuSaturated",
        "a core is full",
        {**_BUILD, f"process_cpu_seconds_total{{{_ONE}}}": "0+57x30"},
        20,
        "pod-1:9090 uses 95% of the one core it can use",
    ),
    Case(
        "BitsProxyCpuSaturated",
        "it is idle, and somebody else's process is busy",
        {**_BUILD, f"process_cpu_seconds_total{{{_ONE}}}": "0+1x30", **_ANOTHERS},
        20,
    ),
    Case(
        "BitsProxyDown",
        "it no longer answers",
        {f"up{{{_ONE}}}": "1x10 0x30", f'bits_proxy_build_info{{{_ONE},version="1.0.0"}}': "1x10 stale"},
        20,
        "pod-1:9090 does not respond to scrapes",
    ),
    Case("BitsProxyDown", "it answers", {f"up{{{_ONE}}}": "1x30", **_BUILD}, 20),
    Case(
        "BitsProxyDown", "something else is down", {'up{instance="db:9100",job="db"}': "0x30", **_BUILD}, 20
    ),
    Case(
        "BitsProxyCertificateNotRenewed",
        "the new files can't be used",
        {f'bits_proxy_listen_certificate_reloads_total{{{_ONE},outcome="failure"}}': "0x5 1x30"},
        10,
        "pod-1:9090 can't use the renewed certificate for its clients",
    ),
    Case(
        "BitsProxyCertificateNotRenewed",
        "a renewal",
        {
            f'bits_proxy_listen_certificate_reloads_total{{{_ONE},outcome="failure"}}': "0x30",
            f'bits_proxy_listen_certificate_reloads_total{{{_ONE},outcome="success"}}': "0x5 1x30",
        },
        10,
    ),
    Case(
        "BitsProxyRestarting",
        "three restarts in half an hour",
        {**_BUILD, f"process_start_time_seconds{{{_ONE}}}": "100x5 500x5 900x5 1200x30"},
        20,
        "pod-1:9090 has restarted 3 times in 30 minutes",
    ),
    Case(
        "BitsProxyRestarting",
        "a roll-out",
        {**_BUILD, f"process_start_time_seconds{{{_ONE}}}": "100x5 500x30"},
        20,
    ),
    Case(
        "BitsProxyInternalErrors",
        "one exception",
        _series(internal_errors_total="0x5 1x30"),
        10,
        "pod-1:9090 ran into a bug",
    ),
    Case("BitsProxyInternalErrors", "none", _series(internal_errors_total="0x30"), 20),
)
