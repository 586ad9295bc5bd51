"""The pages of docs/, and the Python code that is written in them.

The blocks of a page run in order, in one namespace, in an empty folder. A block that cannot run
stands behind a comment that says why; code that a reader need not see is a comment of its own:

    <!-- not run: two machines -->
    ```python
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    ```

    <!-- run
    assert history["loss"][-1] < 1.0
    -->

`tools/docs_hooks.py` keeps both out of the site. On a page that GitHub shows they cannot be seen.
"""

import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
# Texts at the root with the same rules: `docs/` includes some of them.
TEXTS = sorted(ROOT.glob("*.md"))

_BLOCK = re.compile(
    r"^<!-- run\n(?P<hidden>.*?)^-->$"
    r"|^(?P<why><!-- not run: [^>]+ -->\n)?(?P<indent> *)```python\n(?P<shown>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """Code of a page.

    Attributes:
        path: The page.
        line: The number of its first line in the page.
        code: The code.
        is_run: Whether it can run.
        is_hidden: Whether a reader does not see it.
    """

    path: pathlib.Path
    line: int
    code: str
    is_run: bool
    is_hidden: bool

    def compiled(self):
        """Its code, whose messages name the page and the line."""
        return compile("\n" * (self.line - 1) + self.code, self.path, "exec")


def blocks(path):
    """The `Block`s of a page, in order."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        group = "hidden" if match["hidden"] is not None else "shown"
        line = text.count("\n", 0, match.start(group)) + 1
        code = re.sub(f"^{match['indent'] or ''}", "", match[group], flags=re.MULTILINE)
        found.append(Block(path, line, code, match["why"] is None, group == "hidden"))
    return found


def fences(path):
    """How many blocks of Python a page has, counted without their rules."""
    return len(re.findall(r"^ *```+ *(?:python|py)\b", path.read_text(encoding="utf-8"), re.M))
