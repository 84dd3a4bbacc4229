"""`python -m proxy` is `bits-auth-proxy`."""

import sys

from bits_auth_proxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
