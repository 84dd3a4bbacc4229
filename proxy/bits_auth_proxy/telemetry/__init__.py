"""What the proxy reports about itself: metrics, the log, the journal."""
