"""Bytes to pixels, pixels to the square that a tower takes, and what changes them on the way."""
