"""Checks the built documentation site: `mkdocs build` made it, see mkdocs.yml.

    python tools/check_docs.py build/site [--external]

- each link inside the site leads to a page that is there, and to an anchor that it has;
- a page fetches nothing from elsewhere: no script, style, font or picture;
- each public name of `tests/golden/public_names.txt` has an anchor on a page.

Links to other sites are not followed; `--external` lists them.
"""

import argparse
import html.parser
import pathlib
import re
import sys
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMES = ROOT / "tests" / "golden" / "public_names.txt"
# Elements and their attributes that a browser fetches without being asked to.
FETCHED = {"img": "src", "script": "src", "source": "src", "iframe": "src"}
FETCHED_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect"}


class Page(html.parser.HTMLParser):
    """What a page links to, and what may be linked to in it.

    Attributes:
        anchors: The `id`s of its elements.
        links: The targets of its links.
        fetched: Addresses that a browser fetches to show it.
    """

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links, self.fetched = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.anchors.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in FETCHED and FETCHED[tag] in found:
            self.fetched.append(found[FETCHED[tag]])
        if tag == "link" and FETCHED_RELATIONS & set(found.get("rel", "").split()):
            self.fetched.append(found["href"])


def read_pages(site):
    """`{path: Page}` of a folder."""
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def is_external(link):
    return bool(urllib.parse.urlsplit(link).scheme or link.startswith("//"))


def broken_links(site, pages):
    """Lines about links and files that lead nowhere."""
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in [*page.links, *page.fetched]:
            parts = urllib.parse.urlsplit(link)
            if is_external(link) or name.name == "404.html":  # that one is shown at any address
                continue
            target = path
            if parts.path:
                target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.is_file():
                yield f"{name}: {link}: no such file"
            elif anchor and target in pages and anchor not in pages[target].anchors:
                yield f"{name}: {link}: no such anchor"


def fetched_from_elsewhere(site, pages):
    """Lines about what a browser would fetch from other sites."""
    for path, page in pages.items():
        for link in page.fetched:
            if is_external(link) and not link.startswith("data:"):
                yield f"{path.relative_to(site)}: fetches {link}"
    for path in site.rglob("*.css"):
        for link in re.findall(r"url\(\s*['\"]?(https?:)?//", path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)}: fetches {link}"


def public_names(path=NAMES):
    """The listed names, without members of classes and names in files."""
    names = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        name = re.split(r"[(:]", line)[0]
        parts = name.split(".")
        is_member = any(part[0].isupper() for part in parts[:-1])
        if not is_member and ">" not in name:
            names.add(name)
    return names


def undocumented(pages, names):
    """Lines about public names without an anchor."""
    anchors = {anchor for page in pages.values() for anchor in page.anchors}
    for name in sorted(names - anchors):
        yield f"{name} has no anchor on a page"


def faults(site):
    """All that is wrong with a site: lines, none where it is fine."""
    site = site.resolve()
    pages = read_pages(site)
    if not pages:
        return [f"There is no page in {site}: run mkdocs build."]
    return [
        *broken_links(site, pages),
        *fetched_from_elsewhere(site, pages),
        *undocumented(pages, public_names()),
    ]


def main():
    """Prints what is wrong, and fails where something is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=pathlib.Path)
    parser.add_argument("--external", action="store_true", help="list links to other sites")
    given = parser.parse_args()
    found = faults(given.site)
    pages = read_pages(given.site)
    external = sorted({x for page in pages.values() for x in page.links if is_external(x)})
    if given.external:
        print(*external, sep="\n")
    print(*found, sep="\n", end="\n" if found else "")
    if found:
        sys.exit(f"{len(found)} faults in {given.site}")
    print(f"{given.site}: {len(pages)} pages; {len(external)} links to other sites, not followed")


if __name__ == "__main__":
    main()
