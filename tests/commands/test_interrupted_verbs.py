"""A verb that looks at a collection and is ended halfway leaves it as it was; the same command again does all of it."""

import signal
import subprocess
import sys

from lookalike.commands import main
from lookalike.data.collection import Collection

HALFWAY = """
import os, signal, sys
from lookalike import commands
from lookalike.exploring import labels
real = labels.knn
def knn(*given, **more):
    os.kill(os.getpid(), signal.SIGINT)
    return real(*given, **more)
labels.knn = knn
sys.exit(commands.main(sys.argv[1:]))
"""


def test_outliers_ended_halfway(shop):
    before = Collection.open(shop.collection).columns
    done = subprocess.run(
        [sys.executable, "-c", HALFWAY, "outliers", str(shop.collection)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    assert done.stderr.endswith("interrupted\n")
    assert Collection.open(shop.collection).columns == before
    assert main(["outliers", str(shop.collection)]) == 0
    assert "outlier" in Collection.open(shop.collection).columns
