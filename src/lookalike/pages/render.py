"""Pages from the templates beside this file: one HTML document each, no network, all that is put in escaped."""

import base64
from typing import Any


def render(template: str, **values: Any) -> str:
    """The document that `templates/TEMPLATE` makes of `values`; `jpeg|data` is an image's address inside the page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lookalike.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data"] = lambda jpeg: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return environment.get_template(template).render(values).lstrip()
