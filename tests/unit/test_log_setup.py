import asyncio
import base64
import io
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.settings.model import Settings
from bits_auth_proxy.telemetry.log import (
    LEVELS,
    REDACTED,
    Redactor,
    configure,
    get_level,
    json_lines,
    set_level,
)
from bits_auth_proxy.telemetry.log_level import change_level
from tests.support.logging_state import logging_restored

AWKWARD = ["pa\"ss\\wo'rd", "schlüssel-ключ", "back\\slash\\n", "emoji-🔑-key", "tab\there", "plain-secret"]
BOTH = pytest.mark.parametrize("fmt", ["json", "console"])


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    with logging_restored():
        yield


def fail(text: str) -> None:
    raise ValueError(text)


def log_to(redactor: Redactor, *, fmt: str = "json", level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure(level=level, fmt=fmt, redactor=redactor, stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@given(st.text(min_size=4, max_size=30), st.text(max_size=10), st.text(max_size=10))
def test_a_secret_is_replaced_wherever_it_stands(secret: str, before: str, after: str) -> None:
    redactor = Redactor()
    redactor.add(secret)
    assert secret not in redactor.redact(f"{before}{secret}{after}").replace(REDACTED, "")


def test_old_tokens_are_forgotten_and_pinned_secrets_are_not() -> None:
    redactor = Redactor()
    redactor.add("pinned-secret", pinned=True)
    for number in range(100):
        redactor.add(f"token-{number:03}")
    assert redactor.redact("pinned-secret token-099 token-000") == f"{REDACTED} {REDACTED} token-000"


def test_a_secret_within_another_leaves_no_rest() -> None:
    redactor = Redactor()
    redactor.add("secret")
    redactor.add("secret-longer")
    assert redactor.redact("<secret-longer>") == f"<{REDACTED}>"


@BOTH
@pytest.mark.parametrize("secret", AWKWARD)
def test_awkward_secrets_show_in_no_line(secret: str, fmt: str) -> None:
    redactor = Redactor()
    redactor.add(secret, pinned=True)
    stream = log_to(redactor, fmt=fmt)
    log = structlog.get_logger()
    event = f"in the event {secret}"
    log.info(event, value=secret, nested={"deep": [secret, secret.encode()]})
    try:
        fail(secret)
    except ValueError:
        log.exception("failed", again=repr(secret))
    logging.getLogger("aiohttp.client").warning("library %s %r", secret, secret)
    text = stream.getvalue()
    assert text.count(REDACTED) >= 7
    escaped = (json.dumps(secret)[1:-1], repr(secret)[1:-1], repr(secret.encode())[2:-1])
    assert [form for form in (secret, *escaped) if form in text] == []


def test_the_basic_form_is_redacted_once_added() -> None:
    basic = base64.b64encode(b"acme:s3cret").decode()
    redactor = Redactor()
    redactor.add(basic, pinned=True)
    stream = log_to(redactor)
    structlog.get_logger().info("sent", header=f"Basic {basic}")
    assert lines(stream)[0]["header"] == f"Basic {REDACTED}"


def test_a_json_line_begins_with_time_level_and_event() -> None:
    stream = log_to(Redactor())
    structlog.get_logger().warning("token_refreshed", seconds=1.5)
    [line] = lines(stream)
    assert list(line) == ["timestamp", "level", "event", "seconds"]
    assert datetime.fromisoformat(str(line["timestamp"])).utcoffset() == timedelta(0)
    assert (line["level"], line["event"]) == ("warning", "token_refreshed")


def test_an_exception_is_text_in_one_line() -> None:
    stream = log_to(Redactor())
    try:
        fail("why")
    except ValueError:
        structlog.get_logger().exception("failed")
    [line] = lines(stream)
    assert "ValueError: why" in str(line["exception"])


def test_less_than_the_level_is_not_logged() -> None:
    stream = log_to(Redactor(), level="warning")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_the_level_can_be_changed_for_loggers_in_use() -> None:
    stream = log_to(Redactor(), level="error")
    log = structlog.get_logger()
    for level in LEVELS:
        set_level(level)
        assert get_level() == level
        for each in LEVELS:
            getattr(log, each)(f"{each} at {level}")
    expected = [f"{each} at {level}" for i, level in enumerate(LEVELS) for each in LEVELS[i:]]
    assert [line["event"] for line in lines(stream)] == expected


@pytest.mark.parametrize(("before", "after"), [("error", "debug"), ("debug", "error"), ("info", "info")])
def test_a_change_of_the_level_is_logged_if_either_level_lets_it(before: str, after: str) -> None:
    stream = log_to(Redactor(), level=before)
    change_level(after)
    assert get_level() == after
    [line] = lines(stream)
    assert (line["event"], line["before"], line["now"]) == ("log_level_changed", before, after)


def test_the_levels_are_those_of_the_setting() -> None:
    assert tuple(Settings.model_json_schema()["properties"]["log_level"]["enum"]) == LEVELS


ODD = "caf\xe9 \ud83d \U0001f511 z"


def encoded_log(encoding: str, fmt: str) -> tuple[io.BytesIO, io.TextIOWrapper]:
    """Log to a stream as the process has it: strict, with an encoding of its own."""
    binary = io.BytesIO()
    stream = io.TextIOWrapper(binary, encoding=encoding)
    configure(level="debug", fmt=fmt, redactor=Redactor(), stream=stream)
    return binary, stream


@BOTH
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp437"])
def test_what_a_stream_cannot_encode_is_replaced_and_raises_nothing(encoding: str, fmt: str) -> None:
    binary, stream = encoded_log(encoding, fmt)
    log = structlog.get_logger()
    event = f"event {ODD}"
    log.info(event, **{"value": ODD, f"name {ODD}": [ODD]})
    logging.getLogger("aiohttp.client").warning("library %s", ODD)
    try:
        fail(ODD)
    except ValueError:
        log.exception("failed")
    write = json_lines(lambda call: call())
    if write is not None:
        write.write("info", json.dumps({"event": ODD}, ensure_ascii=False))
        write.flush()
    stream.flush()
    text = binary.getvalue().decode(encoding)
    for each in ("event caf", "library caf", "failed"):
        assert each in text
    assert ("caf\xe9" in text) is (encoding != "ascii")
    assert ("\U0001f511" in text) is (encoding == "utf-8")
    if fmt == "json":
        # Escaped as JSON does it, so that whoever reads the line gets the text whole.
        found = [json.loads(line) for line in text.splitlines()]
        assert found[0]["value"] == ODD
        assert found[-1]["event"] == ODD


@BOTH
def test_a_stream_that_is_closed_raises_nothing(fmt: str) -> None:
    _, stream = encoded_log("utf-8", fmt)
    stream.close()
    structlog.get_logger().info("hello")


def test_a_secret_of_any_characters_can_be_redacted() -> None:
    redactor = Redactor()
    redactor.add("s3cret-\ud83d", pinned=True)
    assert redactor.redact("<s3cret-\ud83d>") == f"<{REDACTED}>"


def test_libraries_are_heard_from_warning_on_and_in_full_at_debug() -> None:
    stream = log_to(Redactor())
    logging.getLogger("aiohttp.access").info("chatter")
    logging.getLogger("asyncio").error("trouble")
    assert [(line["event"], line["level"]) for line in lines(stream)] == [("trouble", "error")]
    stream = log_to(Redactor(), level="debug")
    logging.getLogger("aiohttp.access").debug("chatter")
    assert [line["event"] for line in lines(stream)] == ["chatter"]


def test_warnings_go_to_the_log_redacted() -> None:
    redactor = Redactor()
    redactor.add("s3cret-value")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        stream = log_to(redactor)
        warnings.warn("about s3cret-value", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert f"about {REDACTED}" in stream.getvalue()


async def test_an_exception_in_a_callback_goes_to_the_log_redacted() -> None:
    redactor = Redactor()
    redactor.add("s3cret-value")
    stream = log_to(redactor)

    done = asyncio.Event()
    asyncio.get_running_loop().call_soon(fail, "s3cret-value")
    asyncio.get_running_loop().call_soon(done.set)
    await done.wait()
    assert f"ValueError: {REDACTED}" in stream.getvalue()


def test_a_crash_is_logged_redacted() -> None:
    redactor = Redactor()
    redactor.add("s3cret-value")
    stream = log_to(redactor)
    error = ValueError("s3cret-value")
    sys.excepthook(ValueError, error, None)
    [line] = lines(stream)
    assert line["level"] == "critical"
    assert f"ValueError: {REDACTED}" in str(line["exception"])


def test_a_console_that_is_no_terminal_gets_no_colours() -> None:
    stream = log_to(Redactor(), fmt="console")
    structlog.get_logger().info("hello", value=1)
    assert "hello" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_an_info_line_is_cheap() -> None:
    redactor = Redactor()
    for number in range(16):
        redactor.add(f"token-{number:03}-abcdefghijklmnopqrstuvwxyz")
    log_to(redactor)
    log = structlog.get_logger()
    log.info("first")
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for _ in range(1000):
            log.info("request", status=200, operation="applications.create")
        best = min(best, time.process_time() - start)
    print(f"{best * 1000:.1f} µs per line")
    assert best / 1000 < 100e-6
