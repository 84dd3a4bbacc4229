"""The Bits API as documented, for demos and tests. Shares no code with what it stands in for."""
