"""For tests of services that call the Bits API: an emulator of it and a proxy before it, on free ports."""
