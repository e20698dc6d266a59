"""The backends: each draws candidates and keeps the best of each state."""
