"""What is known of public data sets: a file each, found here by name. There is none yet."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """A public data set, as its authors describe it; its images are theirs, and are never fetched unasked."""

    home: str
    """The page of its authors."""
    licence: str
    """SPDX identifier or the authors' own words, of images and labels."""
    citation: str
    """The paper, as BibTeX."""
    splits: tuple[str, ...]
    """Those that the authors define: train, val, test."""
    protocol: str
    """How the authors measure: which rows ask, which are found, what counts."""
    layout: str
    """Key of `SOURCES` for what their archives hold."""


DATASETS: dict[str, str] = {}
"""name -> module with a `DATASET`."""
