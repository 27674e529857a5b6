"""Vectors of images: an encoder made ready to run, and the columns of a collection that it fills."""
