"""What the proxy reports of itself: metrics, the log, the journal."""
