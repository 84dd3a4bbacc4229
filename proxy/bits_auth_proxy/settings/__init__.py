"""What the operator can set, and how it is read. Of this package, it imports `errors` alone."""
