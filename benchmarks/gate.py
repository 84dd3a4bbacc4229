"""Fail when the proxy has become dearer: CPU per request against the straightforward aiohttp proxy.

The two take turns in the same run on the same core, so that a slow or busy machine slows both, and the
ratio holds where microseconds don't. Medians of four runs, idle or busy: 0.15 to 0.16 (http), 0.17 to 0.18
(https). The bounds are a fifth above. Before a field's onward line was kept with it, the ratios were 0.19 and
0.20, and with heads read by llhttp alone, 0.23 and 0.27.
"""

import sys
from typing import Final

from benchmarks import measuring
from benchmarks.__main__ import measure, require_tools
from benchmarks.contenders import OURS, YARDSTICK
from benchmarks.samples import Samples

BOUNDS: Final = {"http": 0.19, "https": 0.22}
ROUNDS: Final = 3
SECONDS: Final = 2


def main() -> None:
    contenders = (OURS, YARDSTICK)
    require_tools(contenders)
    measuring.allow_many_descriptors()
    samples = Samples()
    exceeded = False
    for scheme, bound in BOUNDS.items():
        measure(samples, scheme, contenders=contenders, rounds=ROUNDS, seconds=SECONDS, brief=True)
        ratio = samples.ratio(scheme, "cpu_us", OURS, YARDSTICK)
        if ratio is None:
            sys.exit("nothing was measured")
        exceeded |= ratio.median > bound
        print(
            f"{scheme}: {ratio.median:.3f} times {YARDSTICK}'s CPU ({ratio.low:.3f} to {ratio.high:.3f}), "
            f"at most {bound:g}"
        )
    if exceeded:
        sys.exit("CPU per request exceeds its bound")


if __name__ == "__main__":
    main()
