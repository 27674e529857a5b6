"""Search: vectors in, nearest rows out."""
