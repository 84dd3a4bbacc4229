"""A service that calls the Bits API through its sidecar. It knows only the sidecar's address."""

import itertools
import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request

APPLICATION = {
    "workflowId": "bits:workflow::8abe317f-6d54-4949-8ecd-245efb4fa05d",
    "countryCode": "SE",
    "redirectUrl": "https://acme.example/done",
}
PAUSE = 2.0
"""Seconds between two calls."""


def create(origin: str) -> str:
    """Create an application; return a line with its id or with the error."""
    request = urllib.request.Request(
        f"{origin}/v1/applications.create",
        json.dumps(APPLICATION).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return f"created {json.load(answer)['id']}"
    except urllib.error.HTTPError as error:
        return f"failed: {error.code} {error.read(1000).decode(errors='replace')}"
    except OSError as error:
        return f"failed: {error}"


def main() -> None:
    """Create applications until SIGTERM or SIGINT."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    for count in itertools.count(1):
        print(count, create(os.environ["BITS_ORIGIN"]), flush=True)
        if stopped.wait(PAUSE):
            sys.exit()


if __name__ == "__main__":
    main()
