"""`python -m bits_auth_proxy` is the command `bits-auth-proxy`."""

import sys

from bits_auth_proxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
