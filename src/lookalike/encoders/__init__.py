"""The encoder, from its config and directory to what computes it."""
