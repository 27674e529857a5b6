"""The members of a tar file, found in one pass over its headers; no image is read."""

import os
import tarfile
from pathlib import Path

from lookalike.core.errors import SourceError
from lookalike.data.sources import Place


def index_of(path: Path) -> dict[str, Place]:
    """Name -> place of every regular file in the uncompressed tar at `path`; the last of two members counts.

    The stamp holds the tar's own time, since the times inside are often all the same.
    """
    try:
        changed = path.stat().st_mtime_ns
        places: dict[str, Place] = {}
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all, 1 KB each
                name = os.path.normpath(member.name)
                if member.isreg():
                    places[name] = Place(str(path), f"{member.size}-{changed}", member.offset_data, member.size)
                elif member.islnk() and (target := places.get(os.path.normpath(member.linkname))):
                    places[name] = target
    except (tarfile.TarError, OSError) as error:
        raise SourceError(
            f"`{path}` can't be read as a tar file: {error}.", hint="it must be a plain, uncompressed tar"
        ) from error
    return places
