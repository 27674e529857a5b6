"""What is known of public data sets: a file each, found here by name."""

DATASETS: dict[str, str] = {
    "imagenet1k": "lookalike.data.sources.datasets.imagenet1k",
    "products10k": "lookalike.data.sources.datasets.products10k",
    "glr2021": "lookalike.data.sources.datasets.glr2021",
    "gpr1200": "lookalike.data.sources.datasets.gpr1200",
    "food101": "lookalike.data.sources.datasets.food101",
    "instre": "lookalike.data.sources.datasets.instre",
    "objectnet": "lookalike.data.sources.datasets.objectnet",
    "shopee": "lookalike.data.sources.datasets.shopee",
    "abo": "lookalike.data.sources.datasets.abo",
    "ilias": "lookalike.data.sources.datasets.ilias",
    "guie_tfrecords": "lookalike.data.sources.datasets.guie_tfrecords",
}  # name -> module with a `DATASET`
