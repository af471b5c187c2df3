"""What the server tells of itself: metrics, access log, request log; needs no torch."""
