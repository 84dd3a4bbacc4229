"""The admin listener: probes, metrics and status, apart from the data path."""
