"""The panels of the Grafana dashboard and their PromQL queries."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

ALERTS: Final = 'ALERTS{alertname=~"BitsProxy.+",alertstate="firing",job=~"$job"}'
"""The query for annotations: the firing alerts, with or without an instance."""


class Query(NamedTuple):
    """A PromQL query and the name of each of its series, in which `{{label}}` stands for a label's value."""

    expr: str
    legend: str = ""


class Number(NamedTuple):
    """A panel with the present value, yellow from `warn` and red from `bad`; downwards if `bad` is lower."""

    title: str
    what: str
    unit: str
    query: Query
    warn: float | None = None
    bad: float | None = None


class Chart(NamedTuple):
    """A panel with values over time. `stacked`: their sum has a meaning. `colours`: by series."""

    title: str
    what: str
    unit: str
    queries: Sequence[Query]
    stacked: bool = False
    colours: Mapping[str, str] = MappingProxyType({})


Panel: TypeAlias = Number | Chart


def _of(name: str, labels: str = "") -> str:
    more = f",{labels}" if labels else ""
    return f'{name}{{job=~"$job",instance=~"$instance"{more}}}'


def _bits(name: str, labels: str = "") -> str:
    return _of(f"bits_proxy_{name}", labels)


def _rate(by: str, name: str, labels: str = "") -> str:
    return f"sum by ({by}) (rate({_bits(name, labels)}[$__rate_interval]))"


def _sum(name: str, labels: str = "") -> str:
    return f"sum(rate({_bits(name, labels)}[$__rate_interval]))"


def _total(name: str, labels: str = "") -> str:
    return f"sum(increase({_bits(name, labels)}[$__range]))"


def _mean(name: str, span: str = "$__rate_interval") -> str:
    return f"sum(rate({_bits(f'{name}_sum')}[{span}])) / sum(rate({_bits(f'{name}_count')}[{span}]))"


def _quantile(quantile: float, by: str, name: str) -> str:
    return f"histogram_quantile({quantile}, {_rate(by, f'{name}_bucket')})"


_LEFT: Final = f"{_bits('token_expires_timestamp_seconds')} - time()"
_ISSUED: Final = _bits("token_issued_timestamp_seconds")
_NONE_VALID: Final = 'state=~"absent|expired"'
_ACTIVE: Final = 'state="active"'
_SERVER_ERRORS: Final = 'status=~"5.."'
_OWN_ERRORS: Final = 'problem!="client_gone"'
_WITHOUT_TOKEN: Final = 'problem=~"token_unavailable|credentials_refused"'

ROWS: Final[dict[str, Sequence[Panel]]] = {
    "Token": (
        Number("Proxies", "Proxies that Prometheus scrapes", "short", Query(f"count({_bits('build_info')})")),
        Number(
            "Token life left",
            "The lowest of all proxies, as a share of the token's whole life",
            "percentunit",
            Query(f"min(({_LEFT}) / ({_bits('token_expires_timestamp_seconds')} - {_ISSUED}))"),
            0.18,
            0.15,
        ),
        Number(
            "Without a valid token",
            "Proxies whose requests wait or fail at the moment",
            "short",
            Query(f"sum({_bits('token_state', _NONE_VALID)})"),
            1,
            1,
        ),
        Number(
            "Credentials refused",
            "Proxies whose id and secret the token endpoint denies",
            "short",
            Query(f"sum({_bits('token_credentials_refused')})"),
            1,
            1,
        ),
        Number(
            "Requests that waited for a token",
            "In the time range shown. A few may wait after a start; later, none should",
            "short",
            Query(_total("token_wait_duration_seconds_count")),
            1,
            100,
        ),
        Number(
            "Requests failed without a token",
            "In the time range shown",
            "short",
            Query(_total("request_problems_total", _WITHOUT_TOKEN)),
            1,
            1,
        ),
        Chart(
            "Token state",
            "Proxies by the state of their token. Fresh, stale and suspect tokens are in use",
            "short",
            [Query(f"sum by (state) ({_bits('token_state')})", "{{state}}")],
            stacked=True,
            colours={
                "absent": "#6b7280",
                "expired": "#c8553d",
                "fresh": "#0b6e4f",
                "stale": "#7fb069",
                "suspect": "#e6aa3c",
            },
        ),
        Chart(
            "Token left",
            "The time until the token is no longer used, and until the next token request",
            "s",
            [
                Query(f"min({_LEFT})", "token, least"),
                Query(f"max({_LEFT})", "token, most"),
                Query(
                    f"min({_bits('token_next_refresh_timestamp_seconds')} - time())", "next request, first"
                ),
            ],
        ),
        Chart(
            "Token requests",
            "By outcome and reason",
            "cpm",
            [
                Query(
                    f"60 * {_rate('outcome, reason', 'token_refreshes_total')} > 0", "{{outcome}}, {{reason}}"
                )
            ],
            stacked=True,
        ),
        Chart(
            "Failed token requests",
            "By the kind of failure",
            "cpm",
            [Query(f"60 * {_rate('kind', 'token_refresh_failures_total')} > 0", "{{kind}}")],
            stacked=True,
        ),
        Chart(
            "Token request duration",
            "The mean over an hour. No request waits for a token request while a valid token is in hand",
            "s",
            [Query(_mean("token_refresh_duration_seconds", "1h"), "mean")],
        ),
        Chart(
            "Unauthorized tokens, and credentials",
            "Tokens that got a 401 before they expired; rotations; failures to read the credential files",
            "cpm",
            [
                Query(f"60 * {_sum('token_refused_total')}", "token refused"),
                Query(f"60 * {_sum('credentials_changes_total')}", "rotation"),
                Query(
                    f"60 * {_sum('credentials_read_failures_total')}",
                    "unreadable",
                ),
            ],
        ),
    ),
    "Requests": (
        Chart(
            "Requests by operation",
            "Requests that were accepted for forwarding and have ended",
            "reqps",
            [Query(_rate("operation", "requests_total"), "{{operation}}")],
            stacked=True,
        ),
        Chart(
            "Requests by status",
            "The status sent to the client; 499 if the client left before",
            "reqps",
            [Query(_rate("status", "requests_total"), "{{status}}")],
            stacked=True,
        ),
        Chart(
            "Failed requests",
            "The share of 5xx responses, and the share of the proxy's own errors",
            "percentunit",
            [
                Query(f"{_sum('requests_total', _SERVER_ERRORS)} / {_sum('requests_total')}", "5xx"),
                Query(
                    f"{_sum('request_problems_total', _OWN_ERRORS)} / {_sum('requests_total')}",
                    "the proxy's own",
                ),
            ],
        ),
        Chart(
            "Latency by operation",
            "The 95th percentile of the time from a request's head to the end of its response",
            "s",
            [Query(_quantile(0.95, "operation, le", "request_duration_seconds"), "{{operation}}")],
        ),
        Chart(
            "API latency by operation",
            "The 95th percentile of the time from sending the head to the API's final head",
            "s",
            [Query(_quantile(0.95, "operation, le", "upstream_duration_seconds"), "{{operation}}")],
        ),
        Chart(
            "Latency, all operations",
            "Percentiles of the time for the whole request",
            "s",
            [
                Query(_quantile(each, "le", "request_duration_seconds"), f"p{each * 100:g}")
                for each in (0.5, 0.9, 0.99)
            ],
        ),
        Chart(
            "Problems",
            "Requests that did not end with the API's response",
            "reqps",
            [Query(f"{_rate('problem', 'request_problems_total')} > 0", "{{problem}}")],
            stacked=True,
        ),
        Chart(
            "Rejected requests",
            "Requests rejected as the client's fault. They did not reach the API",
            "reqps",
            [Query(f"{_rate('reason', 'rejected_requests_total')} > 0", "{{reason}}")],
            stacked=True,
        ),
        Chart(
            "Content",
            "The content of requests and responses",
            "Bps",
            [
                Query(_sum("request_bytes_total"), "requests"),
                Query(_sum("response_bytes_total"), "responses"),
            ],
        ),
    ),
    "Connections and saturation": (
        Chart(
            "Connections to the API",
            "By state",
            "short",
            [
                Query(f"sum by (state) ({_bits('upstream_connections')})", "{{state}}"),
            ],
        ),
        Chart(
            "Attempts to connect",
            "By outcome",
            "cpm",
            [Query(f"60 * {_rate('outcome', 'upstream_connects_total')} > 0", "{{outcome}}")],
            stacked=True,
        ),
        Chart(
            "Time to connect",
            "The mean time for DNS, TCP and TLS, over an hour",
            "s",
            [Query(_mean("upstream_connect_duration_seconds", "1h"), "mean")],
        ),
        Chart(
            "Retries",
            "Requests that the proxy sent again, by reason",
            "reqps",
            [Query(_rate("reason", "retries_total"), "{{reason}}")],
        ),
        Chart(
            "In flight and queued",
            "Requests being forwarded, and requests that are waiting for a connection",
            "short",
            [
                Query(f"sum({_bits('requests_in_flight')})", "in flight"),
                Query(f"sum({_bits('upstream_queue_length')})", "queued"),
            ],
        ),
        Chart(
            "Nearest to its limit",
            "The proxy closest to a limit: connections to the API, the queue, client connections",
            "percentunit",
            [
                Query(
                    f"max(sum without (state) ({_bits('upstream_connections', _ACTIVE)})"
                    f" / {_bits('upstream_connections_limit')})",
                    "connections to the API",
                ),
                Query(f"max({_bits('upstream_queue_length')} / {_bits('upstream_queue_limit')})", "queue"),
                Query(f"max({_bits('client_connections')} / {_bits('client_connections_limit')})", "clients"),
            ],
        ),
    ),
    "Process": (
        Chart(
            "CPU",
            "The share of the one core that a proxy can use",
            "percentunit",
            [Query(f"rate({_of('process_cpu_seconds_total')}[$__rate_interval])", "{{instance}}")],
        ),
        Chart(
            "Memory",
            "Resident memory",
            "bytes",
            [Query(_of("process_resident_memory_bytes"), "{{instance}}")],
        ),
        Chart(
            "File descriptors",
            "Open file descriptors",
            "short",
            [Query(_of("process_open_fds"), "{{instance}}")],
        ),
        Chart(
            "Uptime",
            "A drop to 0 is a restart",
            "s",
            [Query(f"time() - {_of('process_start_time_seconds')}", "{{instance}}")],
        ),
        Chart(
            "Bugs and suppressed log lines",
            "Internal errors are bugs. Suppressed lines only repeat other lines",
            "cpm",
            [
                Query(f"60 * {_sum('internal_errors_total')}", "internal errors"),
                Query(f"60 * {_rate('event', 'log_lines_suppressed_total')}", "suppressed: {{event}}"),
            ],
        ),
        Chart(
            "Versions",
            "Proxies by version",
            "short",
            [Query(f"sum by (version, python) ({_bits('build_info')})", "{{version}}, Python {{python}}")],
            stacked=True,
        ),
    ),
}


def resolved(expr: str, *, job: str, rate_interval: float, seconds: float) -> str:
    """Return a query with values for Grafana's variables; `seconds` is the length of the time range shown."""
    for name, value in {
        "$__rate_interval": f"{rate_interval:.0f}s",
        "$__range": f"{seconds:.0f}s",
        "$job": job,
        "$instance": ".+",
    }.items():
        expr = expr.replace(name, value)
    return expr
