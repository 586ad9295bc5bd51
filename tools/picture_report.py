"""Makes the picture of the README from a report that an example wrote.

    python examples/to_device.py --exports float32 int8 int4 --output to_device_output
    python -m tools.picture_report to_device_output

Writes docs/report.png, the top of the page, and docs/report.json, its figures. The picture holds
the digest of that file, so `tests/test_readme.py` knows that both are of one run.
"""

import hashlib
import json
import pathlib
import sys
import tempfile

from PIL import Image, PngImagePlugin

from tools import run_browser

ROOT = pathlib.Path(__file__).resolve().parents[1]
PICTURE, FIGURES = ROOT / "docs" / "report.png", ROOT / "docs" / "report.json"
SIZE = (960, 1192)  # pixels
KEY = "sha256 of report.json"


def digest():
    """Of the figures, as the picture holds it."""
    return hashlib.sha256(FIGURES.read_bytes()).hexdigest()


def take_picture(page, file):
    """Has the browser of `make extras` draw the top of a page."""
    width, height = SIZE
    script = ROOT / "tools" / "screenshot.mjs"
    run_browser.run_script(script, page=page.absolute(), picture=file, width=width, height=height)


def main():
    """Makes both files from the folder on the command line."""
    folder = pathlib.Path(sys.argv[1])
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    figures = {key: report[key] for key in ("title", "verdict", "rows")}
    FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with tempfile.TemporaryDirectory() as drawn:
        file = pathlib.Path(drawn) / "page.png"
        take_picture(folder / "report.html", file)
        information = PngImagePlugin.PngInfo()
        information.add_text(KEY, digest())
        Image.open(file).save(PICTURE, optimize=True, pnginfo=information)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
