"""What reads a tower's forward, once for all towers: `declare`, `jax`, `onnx`."""
