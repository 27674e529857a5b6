"""Towers in JAX."""
