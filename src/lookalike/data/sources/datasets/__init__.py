"""What is known of public data sets: a file each, found here by name."""

DATASETS: dict[str, str] = {
    "imagenet1k": "lookalike.data.sources.datasets.imagenet1k",
    "products10k": "lookalike.data.sources.datasets.products10k",
    "glr2021": "lookalike.data.sources.datasets.glr2021",
}  # name -> module with a `DATASET`
