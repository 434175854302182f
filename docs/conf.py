"""Settings of the documentation, the pages made at build time, and the count of executed pages."""

import os
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.ext.napoleon.docstring import GoogleDocstring

sys.path.insert(0, str(Path(__file__).parent))

import generated

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the kernels: two pages are executed at once
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # for `commonweight`
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

project = "commonweight"
author = "the commonweight authors"
copyright = "the commonweight authors, MIT licence"  # noqa: A001
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", *(f"_generated/{page}.md" for page in ("api", "layers", "commands"))]
html_theme = "furo"
html_title = "commonweight"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["wrap.css"]

myst_heading_anchors = 4  # the anchors that GitHub makes
nb_execution_mode = "force"
nb_execution_timeout = 180  # seconds for a cell
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_output_stderr = "remove"  # progress

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 90
GoogleDocstring._parse_attribute_docstring = GoogleDocstring._consume_to_end  # a colon in an attribute is prose

EXECUTED = 17
"""Pages with code cells: a page that is no longer executed is an error."""


def count_executed(app: Sphinx, error: Exception | None) -> None:
    """Refuse a build that executed fewer pages, or more, than there should be."""
    if error:
        return
    found = sorted(page for page, data in app.env.nb_metadata.items() if data.get("exec_data"))
    if len(found) != EXECUTED:
        raise ExtensionError(f"{EXECUTED} pages should be executed, and {len(found)} were: {', '.join(found)}")


def relink(app: Sphinx, docname: str, source: list[str]) -> None:
    """Let links to pages outside this folder lead to their copies."""
    page = app.env.doc2path(docname)
    source[0] = generated.relinked(source[0], page, page)


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the generated pages before the sources are read, and count the executed ones at the end."""
    generated.write()
    app.connect("source-read", relink)
    app.connect("build-finished", count_executed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
