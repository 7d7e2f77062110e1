"""Sphinx's settings of the docs site: `make docs` builds it from README.md, docs/*.md and the docstrings."""

import importlib
import sys
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from sphinx.application import Sphinx

import nexus

settings.configure(INSTALLED_APPS=["nexus.django"])  # its models can be imported then
django.setup()
for module in ("social.application", "social.backfill"):
    importlib.import_module(module)  # autodoc would import it with TYPE_CHECKING set, which pydantic does not accept

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

project = "nexus-tasks"
copyright = "2026, the nexus-tasks authors"  # noqa: A001, it is Sphinx's name
release = nexus.__version__

# The source folder is the repository, so that links between README.md, docs/ and examples/ are the same here and there.
root_doc = "docs/site/index"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/site/**",
    "examples/README.md",
    "examples/*/README.md",
    "bench/**/README.md",
]
# Folders without pages; Sphinx does not enter them.
exclude_patterns = [
    ".*",
    "build",
    "dev",
    "events",
    "functions",
    "ops",
    "requirements",
    "samples",
    "shared",
    "tests",
]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinxcontrib.mermaid"]
myst_heading_anchors = 4  # of GitHub's names
myst_fence_as_directive = ["mermaid"]
myst_links_external_new_tab = False
suppress_warnings = ["myst.header"]  # a generated table's page may skip a level

autodoc_default_options = {"members": True, "exclude-members": "model_config"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
default_role = "code"  # docstrings write `code` as Markdown does

smartquotes = False  # --json keeps its two hyphens

html_theme = "pydata_sphinx_theme"
html_title = f"nexus-tasks {release}"
html_static_path = ["../../.local/mermaid/site"]
html_extra_path = ["extra"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"secondary_sidebar_items": ["page-toc"], "footer_start": ["copyright"], "footer_end": []}

mermaid_use_local = "mermaid/mermaid.esm.min.mjs"
mermaid_fullscreen = False
mermaid_height = "auto"


def mark_examples(*arguments: Any) -> None:
    """Marks the indented examples of a docstring as code, as reStructuredText requires. Changes its lines in place."""
    lines: list[str] = arguments[-1]
    marked, before = [], ""
    for line in lines:
        if line.startswith("    ") and not marked[-1] and not before.startswith("    "):
            marked += ["::", ""]
        marked.append(line)
        before = line or before
    lines[:] = marked


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", mark_examples)
