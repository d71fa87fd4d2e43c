"""Recordings: find, open, read, repair, write."""
