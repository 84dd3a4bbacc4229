"""The access token: where it comes from, how long it lives, when it is renewed."""
