"""What a sidecar holds on to, counted."""

from pathlib import Path

from bits_auth_proxy.sidecar import Sidecar


def leftovers(sidecar: Sidecar, descriptors: int) -> dict[str, int]:
    """Return what is left of traffic, by what it is; `descriptors` were open before there was any.

    Idle connections to the API are no leftovers: each has a descriptor at both ends, if both are here.
    """
    context, pool = sidecar._context, sidecar._pool
    counts = pool.counts()
    metrics = sidecar._telemetry.render("")[0].decode().splitlines()
    (in_flight,) = (line for line in metrics if line.startswith("bits_proxy_requests_in_flight "))
    return {
        "client connections": sidecar._gateway.client_connections,
        "places of client connections": (
            sidecar._settings.limits.max_connections - sidecar._clients.limit._free
        ),
        "busy connections": counts["active"] + counts["connecting"],
        "waiting requests": len(pool._waiters),
        "tasks": len(sidecar._traffic_tasks._tasks),
        "bytes held for replay": sidecar._settings.limits.replay_total - context.replay_budget.free,
        "writes": len(sidecar._batcher._pending),
        "requests in flight": int(float(in_flight.split()[1])),
        "descriptors": max(0, open_descriptors() - descriptors - 2 * counts["idle"]),
    }


def open_descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def is_idle(sidecar: Sidecar, port: int) -> bool:
    """Return whether the connection from `port` to the API is idle."""
    transports = [connection._transport for connection in sidecar._pool._idle]
    return port in [each.get_extra_info("sockname")[1] for each in transports if each is not None]
