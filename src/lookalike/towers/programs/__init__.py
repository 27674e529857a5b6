"""What computes a tower's forward, once for all towers: `jax`, `onnx`."""
