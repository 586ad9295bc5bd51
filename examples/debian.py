"""Lines with labels that every Debian has: the synopses of packages, and their sections.

`data/debian_synopses.tsv.xz` is an excerpt, for machines without package lists: see
`data/README.md`.
"""

import lzma
import pathlib
import re
import subprocess

import numpy as np

EXCERPT = pathlib.Path(__file__).parent / "data" / "debian_synopses.tsv.xz"


def synopses(source):
    """`[(section, synopsis)]` of packages, each synopsis once.

    Args:
        source: `"excerpt"`, the lines beside this file, or `"apt"`, all that this machine knows.
    """
    if source == "excerpt":
        lines = lzma.decompress(EXCERPT.read_bytes()).decode().splitlines()
        return [tuple(line.split("\t")) for line in lines if not line.startswith("#")]
    command = ["apt-cache", "dumpavail"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"`source` apt needs the package lists of Debian: {error}") from None
    return parse(listed)


def parse(listed):
    """`[(section, synopsis)]` of what `apt-cache dumpavail` prints.

    Of synopses that begin with the same four words, such as those of a library, its headers and its
    manual, only the first counts: else the same words would be learned and judged by.
    """
    found, begun = [], set()
    for entry in listed.split("\n\n"):
        section = re.search(r"^Section: ([\w-]+)$", entry, re.MULTILINE)  # of main: no contrib/
        synopsis = re.search(r"^Description(?:-en)?: (.+)$", entry, re.MULTILINE)
        if not section or not synopsis:
            continue
        begin = " ".join(re.findall(r"\w+", synopsis[1].lower())[:4])
        if begin not in begun:
            begun.add(begin)
            found.append((section[1], synopsis[1]))
    return found


def labeled(source, sections, train_samples, test_samples):
    """Synopses of the largest sections, as many of each, and the numbers of their sections.

    Returns:
        `(texts, labels)` to train on, the same to test on, and the names of the sections.
    """
    by_section = {}
    for section, synopsis in synopses(source):
        by_section.setdefault(section, []).append(synopsis)
    names = sorted(sorted(by_section, key=lambda name: -len(by_section[name]))[:sections])
    each = (train_samples + test_samples) // sections
    fewest = min(len(by_section[name]) for name in names)
    if len(names) < sections or fewest < each:
        raise ValueError(
            f"`train_samples` and test lines ask for {each} lines of each of {sections} sections, "
            f"but of {len(names)} the smallest has {fewest}: ask for fewer, or source='apt'."
        )
    rng = np.random.default_rng(0)
    texts = np.array([rng.permutation(by_section[name])[:each] for name in names], dtype=object)
    labels = np.repeat(np.arange(sections, dtype="int32")[:, None], each, axis=1)
    cut = train_samples // sections
    parts = []
    for part in (slice(cut), slice(cut, None)):
        order = rng.permutation(texts[:, part].size)
        parts.append((texts[:, part].reshape(-1)[order], labels[:, part].reshape(-1)[order]))
    return *parts, names
