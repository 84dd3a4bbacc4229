"""Bytes on sockets are tested on the event loop that serves."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

# uvloop can't start a process with a terminal of its own.
ON_ASYNCIO = "test_live_view.py"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name == ON_ASYNCIO:
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}
