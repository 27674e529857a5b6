"""What is known of public data sets: a file each, found here by name. There is none yet."""

DATASETS: dict[str, str] = {}  # name -> module with a `DATASET`
