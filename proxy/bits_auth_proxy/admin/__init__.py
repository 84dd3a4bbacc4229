"""The admin listener, apart from the data path: probes, metrics, status and the admin page."""
