"""A reverse proxy that adds a valid OAuth token to your requests to the Bits API."""

__version__ = "0.1.0"
