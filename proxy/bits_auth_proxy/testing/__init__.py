"""Support for the tests of services that call the Bits API: an emulator with a proxy in front of it."""
