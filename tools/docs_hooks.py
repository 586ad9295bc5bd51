"""What mkdocs does with the pages of docs/ beside its plugins: see mkdocs.yml."""

import re

# Code that a page's test runs and a reader need not see: see tests/docs/pages.py.
HIDDEN = re.compile(r"<!-- (?:run\n.*?|not run: .*?)-->\n?", re.DOTALL)
SEARCH = '<div class="md-search" data-md-component="search" role="dialog"'


def on_page_markdown(markdown, **_):
    """The source of a page without its hidden code."""
    return HIDDEN.sub("", markdown)


def on_post_page(output, **_):
    """The page with a name for its search, which the theme forgets."""
    return output.replace(SEARCH, f'{SEARCH} aria-label="Search"')
