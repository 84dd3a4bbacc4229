"""Build the image, or run podman on its cache of images and containers.

python -m tools.image build        # prints the reference of the image
python -m tools.image -- images
"""

import subprocess
import sys

from tools.image.podman import build, environment


def main(arguments: list[str]) -> int:
    """Build, or run podman with the arguments after the first; return the exit code."""
    if arguments == ["build"]:
        print(build())
        return 0
    return subprocess.run(["podman", *arguments[1:]], env=environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
