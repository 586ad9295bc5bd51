"""The page: opened from disk, without network, in a real browser; and its HTML.

Needs `make .venv/browser`; skipped without, unless KERAS_KD_REQUIRE_BROWSER=1.
"""

import html.parser
import itertools
import re

import pytest

from tests.report import browser, made_up, samples

# Width, theme, and whether axe-core looks too, which takes longer than all the rest.
VIEWS = [(1280, "light", True), (1280, "dark", False), (400, "light", False), (400, "dark", True)]
# CSS pixels; browsers' own smallest text is 9 to 12.
SMALLEST = 11.0


def nothing_to_compare():
    return made_up.report(student=made_up.with_errors(made_up.labels(50), [5]))


def regression():
    truth = made_up.labels(300) / 4.0

    def models(*shifts):
        return [made_up.regression(truth, truth + shift) for shift in shifts]

    return made_up.report(
        {"slice_keys": {"half": [0] * 150 + [1] * 150}},
        teacher=models(0.1),
        baseline=models(0.5, 0.52),
        student=models(0.31, 0.30),
    )


CASES = {
    "full": samples.full,
    "nothing to compare": nothing_to_compare,
    "regression": regression,
    # Names that nobody planned for: long, unbreakable, full of markup; and many of everything.
    "long names": lambda: samples.full(
        names=[f"a-class-with-a-name-without-an-end-{'x' * 30}-{i}" for i in range(10)],
        exports=["int8-" + "y" * 60, samples.NASTY],
        title=f"{samples.NASTY} {'z' * 80}",
    ),
    "many": lambda: samples.full(
        names=[f"class {i}" for i in range(40)], exports=[f"export {i}" for i in range(7)]
    ),
}


@pytest.fixture(scope="module", params=CASES)
def page(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    CASES[request.param]().save_html(path)
    return path


@pytest.fixture(scope="module")
def seen(page):
    browser.needed()
    return browser.look(page, VIEWS, shots=page.parent)


def test_nothing_is_fetched_and_nothing_fails(page, seen):
    for view in seen:
        assert view["requests"] == [page.as_uri()]
        assert view["errors"] == []


def test_it_fits_the_window(seen):
    for view in seen:
        assert view["scrollWidth"] <= view["innerWidth"] == view["width"]
        for text in view["texts"]:
            left, _, right, _ = text["box"]
            assert left >= 0, text
            assert right <= view["width"], text


def test_texts_are_large_enough(seen):
    for view in seen:
        assert len(view["texts"]) > 10
        for text in view["texts"]:
            assert text["size"] >= SMALLEST, text


def test_texts_of_a_picture_do_not_meet(seen):
    for view in seen:
        of_pictures = {}
        for text in view["texts"]:
            if text["picture"] is not None:
                of_pictures.setdefault(text["picture"], []).append(text)
        for texts in of_pictures.values():
            for one, other in itertools.combinations(texts, 2):
                assert not _meet(one["box"], other["box"]), (one, other)


def _meet(one, other):
    # The boxes are those of whole lines: a quarter above and below the letters is empty.
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width > 1 and height > 0.45 * min(one[3] - one[1], other[3] - other[1])


def test_pictures_are_there_and_have_names(seen):
    for view in seen:
        named = [picture for picture in view["pictures"] if picture["name"]]
        assert named
        for picture in named:
            left, top, right, bottom = picture["box"]
            assert right - left > 250
            assert bottom - top > 25


def test_accessibility(seen):
    """Contrast, names, headings, landmarks: axe-core finds nothing."""
    assert [view["faults"] for view in seen] == [[], None, None, []]


def test_screenshots_are_not_blank(page, seen):
    import matplotlib.image

    for view in seen:
        pixels = matplotlib.image.imread(page.parent / f"{view['width']}-{view['scheme']}.png")
        assert pixels.shape[1] == view["width"]
        dark = pixels[..., :3].mean() < 0.5
        assert dark == (view["scheme"] == "dark")
        assert pixels[..., :3].std() > 0.03


def test_html(page):
    browser.needed()
    assert browser.html_faults(page) == []


def test_the_checkers_find_faults(tmp_path):
    browser.needed()
    page = tmp_path / "bad.html"
    page.write_text(
        "<!DOCTYPE html><html><head><title>t</title></head><body><p style='color:#999;"
        "background:#aaa'>pale<div id=a><img src='http://example.invalid/x.png'></div>"
        "<p id=a style='font-size:6px;width:900px'>small</body></html>"
    )
    assert browser.html_faults(page)
    (view,) = browser.look(page, [(400, "light", True)])
    assert any(fault.startswith("color-contrast") for fault in view["faults"])
    assert view["scrollWidth"] > view["innerWidth"]
    assert min(text["size"] for text in view["texts"]) < SMALLEST
    assert len(view["requests"]) == 2


class Words(html.parser.HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def test_the_users_text_stays_text(tmp_path):
    CASES["long names"]().save_html(tmp_path / "report.html")
    words = Words((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in words.tags
    assert any(samples.NASTY in text for text in words.texts)


def test_the_page_needs_nothing_else(page):
    text = page.read_text(encoding="utf-8")
    words = Words(text)
    assert not {"link", "script", "img", "iframe", "object"} & set(words.tags)
    assert not {"src", "href", "xlink:href", "data"} & {name for name, _ in words.attributes}
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"https?://", text.replace("http://www.w3.org/2000/svg", ""))


def test_no_path_of_the_machine(page):
    text = page.read_text(encoding="utf-8")
    assert str(page.parent) not in text
    assert not re.search(r"(?<![\w<])/(tmp|home|root|usr|work|var|Users)/", text)


def test_an_error_that_is_lower_does_not_look_higher(tmp_path):
    regression().save_html(tmp_path / "report.html")
    words = Words((tmp_path / "report.html").read_text(encoding="utf-8")).texts
    number = words.index(" lower RMSE") - 1
    assert words[number] == "0.20 ± 0.02"


def test_verdict_and_figures_are_on_the_page(tmp_path):
    report = samples.full()
    report.save_html(tmp_path / "report.html")
    text = " ".join(Words((tmp_path / "report.html").read_text(encoding="utf-8")).texts)
    assert report.verdict in text
    for remark in report.remarks:
        assert remark in text
    for words in ("94.2 ± 0.2", "36.4 KB", "655 µs", "a note", "one of two cores"):
        assert words in text
