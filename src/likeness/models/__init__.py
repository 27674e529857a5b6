"""Encoders: preprocessing, tower, pooling, projection. `config` and `preprocess` import no JAX; `encoder` does."""
