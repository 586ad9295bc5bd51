"""Looks for phrases that `words.toml` lists, in code, comments, messages and documents.

    python tools/check_words.py [--count] [PATH ...]

prints `file:line: the phrase: what to write`, and fails where there is one. `--count` prints how
often each phrase is there, and in how many files.
"""

import argparse
import collections
import pathlib
import re
import sys

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLACES = (
    *(".github", "benchmarks", "cmake", "csrc", "docs", "examples", "keras_kd", "tests", "tools"),
    *(".ci/run", "CITATION.cff", "CMakeLists.txt", "Makefile", "pyproject.toml", "setup.py"),
)
TEXTS = {".cc", ".cmake", ".cu", ".cuh", ".h", ".md", ".mjs", ".py", ".sh", ".toml"}
TEXTS |= {".yaml", ".yml"}
SKIPPED = ("tools/words.toml", "tests/tools/test_check_words.py")
# Between two words: white space, the sign of a comment, the end and beginning of a string, names.
GAP = r"""(?:[\s#*_/-]|["']\s*\n\s*f?["'])+"""


class Phrase:
    """One entry of `words.toml`."""

    def __init__(self, find, write, unless=None):
        self.name, self.write = find, write
        self.pattern = self._compiled(find)
        self.unless = unless and self._compiled(unless)

    def _compiled(self, expression):
        spaced = expression.replace(" ", GAP)
        end = "" if expression.endswith(("`", ")", " ")) else "(?![a-zA-Z])"
        return re.compile(f"(?<![a-zA-Z])(?:{spaced}){end}", re.IGNORECASE)

    def hits(self, text):
        """The matches in a text, but for those inside of what `unless` matches."""
        allowed = [match.span() for match in self.unless.finditer(text)] if self.unless else []
        for match in self.pattern.finditer(text):
            if not any(start <= match.start() and match.end() <= end for start, end in allowed):
                yield match


def phrases(path=ROOT / "tools/words.toml"):
    """The entries of a list."""
    listed = tomllib.loads(path.read_text(encoding="utf-8"))["phrase"]
    return [Phrase(**entry) for entry in listed]


def files(root, places):
    """The texts at some places below a folder."""
    for place in places:
        path = root / place
        if not path.exists():
            raise SystemExit(f"There is no {path}.")
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            name = (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()
            is_text = file.is_file() and (file.suffix in TEXTS or file == path)
            if is_text and name not in SKIPPED:
                yield file, name


def main():
    """Checks the files on the command line, by default all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", action="store_true", help="print how often each phrase is there")
    parser.add_argument("places", nargs="*", help="files and folders; default: all")
    given = parser.parse_args()
    listed, counts = phrases(), collections.defaultdict(collections.Counter)
    places = given.places or [*PLACES, *(path.name for path in ROOT.glob("*.md"))]
    for file, name in files(ROOT, places):
        text = file.read_text(encoding="utf-8")
        for phrase in listed:
            for match in phrase.hits(text):
                counts[phrase.name][name] += 1
                if not given.count:
                    line = text.count("\n", 0, match.start()) + 1
                    found = re.sub(r"\s+", " ", match[0])
                    print(f"{name}:{line}: {found!r}: write {phrase.write}")
    total = sum(sum(of_file.values()) for of_file in counts.values())
    for phrase, of_file in sorted(counts.items(), key=lambda item: -sum(item[1].values())):
        if given.count:
            print(f"{sum(of_file.values()):5} in {len(of_file):3} files: {phrase}")
    if total:
        sys.exit(f"{total} phrases of tools/words.toml")


if __name__ == "__main__":
    main()
