"""An emulator of the Bits API as documented, for demos and tests. It shares no code with what it tests."""
