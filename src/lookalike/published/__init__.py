"""Published weights: layouts, downloads, presets."""
