"""What is known of public data sets: a file each, found here by name."""

DATASETS: dict[str, str] = {
    "imagenet1k": "lookalike.data.sources.datasets.imagenet1k",
    "products10k": "lookalike.data.sources.datasets.products10k",
    "glr2021": "lookalike.data.sources.datasets.glr2021",
    "gldv2": "lookalike.data.sources.datasets.gldv2",
    "sop": "lookalike.data.sources.datasets.sop",
    "inshop": "lookalike.data.sources.datasets.inshop",
    "deepfashion_c2s": "lookalike.data.sources.datasets.deepfashion_c2s",
    "cars196": "lookalike.data.sources.datasets.cars196",
    "inat2018": "lookalike.data.sources.datasets.inat2018",
    "met": "lookalike.data.sources.datasets.met",
    "food2k": "lookalike.data.sources.datasets.food2k",
    "rp2k": "lookalike.data.sources.datasets.rp2k",
    "uned": "lookalike.data.sources.datasets.uned",
}  # name -> module with a `DATASET`
