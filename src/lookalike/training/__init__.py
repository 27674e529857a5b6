"""From a config and a collection to an encoder: the story is in loop.py."""
