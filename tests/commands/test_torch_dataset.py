import pickle

import numpy as np
import pytest

import lookalike as la
from lookalike.imaging.decode import decode

torch = pytest.importorskip("torch", reason="reference library not installed: torch")


def test_a_loader_reads_a_collection(shop):
    rows = la.Collection.open(shop.collection).table(["id", "image", "domain", "label"]).sort_by("id").to_pylist()
    dataset = la.TorchDataset(str(shop.collection))
    assert len(dataset) == 12
    assert dataset.classes == [(f"domain{i // 2}", f"label{i}") for i in range(4)]
    for index in (0, 7):
        image, target = dataset[index]
        np.testing.assert_array_equal(image.numpy().transpose(1, 2, 0), decode(rows[index]["image"]))
        assert dataset.classes[target] == (rows[index]["domain"], rows[index]["label"])
    loader = torch.utils.data.DataLoader(pickle.loads(pickle.dumps(dataset)), batch_size=5)
    images, targets = map(torch.cat, zip(*loader, strict=True))
    assert images.shape == (12, 3, 40, 48)
    assert targets.tolist() == dataset.targets


def test_some_rows_changed_on_the_way(shop):
    few = la.TorchDataset(la.Collection.open(shop.collection), where="domain = 'domain1'", transform=lambda i: i.size)
    assert [few[i] for i in range(6)] == [((48, 40), 0)] * 3 + [((48, 40), 1)] * 3
