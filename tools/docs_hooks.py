"""What mkdocs does with the pages of docs/ beside its plugins: see mkdocs.yml."""

import json
import pathlib
import re

# Code that a page's test runs and a reader need not see: see tests/docs/pages.py.
HIDDEN = re.compile(r"<!-- (?:run\n.*?|not run: .*?)-->\n?", re.DOTALL)
# Where a page lists the notebooks.
NOTEBOOKS = "<!-- notebooks -->"
SEARCH = '<div class="md-search" data-md-component="search" role="dialog"'


def on_page_markdown(markdown, config, **_):
    """The source of a page without its hidden code, with the list of notebooks."""
    if NOTEBOOKS in markdown:
        markdown = markdown.replace(NOTEBOOKS, notebook_table(pathlib.Path(config["docs_dir"])))
    return HIDDEN.sub("", markdown)


def on_post_page(output, **_):
    """The page with a name for its search, which the theme forgets."""
    return output.replace(SEARCH, f'{SEARCH} aria-label="Search"')


def notebook_table(docs):
    """A table of `docs/notebooks/*.ipynb`, by their headings; for a page in a folder beside."""
    rows = ["| notebook | file |", "|---|---|"]
    for path in sorted(docs.glob("notebooks/*.ipynb")):
        first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
        title = "".join(first["source"]).splitlines()[0].lstrip("# ")
        rows.append(f"| {title} | [{path.name}](../notebooks/{path.name}) |")
    return "\n".join(rows) if len(rows) > 2 else "There are none yet."
