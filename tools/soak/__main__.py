"""Short tokens, random faults, rotations and 16 clients: every response is accounted for.

`make soak` runs for 10 minutes. The token endpoint fails, hangs and sends rubbish; the API learns of new
tokens late, refuses them early, and refuses one operation always; the credential files get new pairs, good
and bad ones. Each response must be a success or an injected fault of the API. No request may fail because of
the token, and no call may reach the API twice, except after a 401. The exit code is 0 if all of this held.
"""

import argparse
import asyncio
import random
import sys
from collections import Counter

from tests.support import evidence
from tools.soak.run import CLIENTS, LIFETIME, standing


async def main() -> int:
    """Run, report, and return the exit code; run again if the machine stopped for a token's life."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    good, held_up = await one(arguments.seconds, arguments.seed)
    if not good and held_up > LIFETIME:
        print(f"The machine stopped this process for {held_up:.1f} s, which proves nothing. Running again.")
        good, _ = await one(arguments.seconds, arguments.seed)
    return 0 if good else 1


async def one(seconds: float, seed: int) -> tuple[bool, float]:
    """Run once and report; return whether all went well, and for how many seconds the machine stopped it."""
    async with standing(random.Random(seed)) as soak:
        await soak.run(seconds)
        wrong = soak.verdict()
        logged = Counter(event["event"] for event in soak.events)
    print(f"seed {seed}, {seconds:g} s, {CLIENTS} clients, tokens of {LIFETIME:g} s")
    print(f"responses by status: {dict(sorted(soak.seen.items()))}; the slowest took {soak.slowest:.2f} s")
    print(f"to the operation that the API refuses: {dict(soak.refused)}")
    print(f"calls that reached the API: {soak.arrived}, of which {soak.replayed} were replayed after a 401")
    print(f"injected faults: {dict(soak.injected)}; disturbances: {dict(soak.done)}")
    print(f"tokens: {logged['token_refreshed']}, failed token requests: {logged['token_refresh_failed']}")
    print(f"pairs adopted: {logged['credentials_adopted']}; failures: {dict(soak.failures) or 0}")
    if wrong:
        print("\n".join(f"{name}:\n{text}" for name, text in evidence.told()))
    for each in wrong:
        print(f"NOT ACCOUNTED FOR: {each}")
    return not wrong and soak.seen[200] > 0, soak.held_up


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
