"""Auth-injecting reverse proxy sidecar for the Bits API."""

__version__ = "0.1.0"
