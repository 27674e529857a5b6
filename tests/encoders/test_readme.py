"""The README: what the Hub reads of it, and what is read back."""

import pytest
import yaml

from lookalike.encoders.readme import readme, words_and_code


@pytest.mark.parametrize(
    ("licence", "front"),
    [
        ("mit", {"license": "mit"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("cc-by-nc-sa-4.0", {"license": "cc-by-nc-sa-4.0"}),
        ("My Own, v1!", {"license": "other", "license_name": "my-own-v1"}),
        ("unknown", {"license": "other", "license_name": "unknown"}),
        (None, {}),
    ],
)
def test_the_front_matter_is_what_the_hub_takes(licence, front):
    text = readme("A", "import this", library="onnx", licence=licence)
    found = yaml.safe_load(text.split("---\n")[1])
    assert found == {"library_name": "onnx", "pipeline_tag": "image-feature-extraction", **front}


@pytest.mark.parametrize("words", ["", "All is inside. Nothing is not."])
def test_words_and_code_come_back(words):
    code = "import this\n\ndef embed(path):\n    return path\n"
    text = readme("A", code, "", "## More\n\n```python\nother\n```", library="", licence=None, words=words)
    assert words_and_code(text) == (words, code)
    assert text.endswith("more\n\n```python\nother\n```\n".replace("more", "## More"))
    assert words_and_code("# Another README\n") is None
