"""Double-entry books, in cents."""
