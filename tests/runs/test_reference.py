"""The reference of `docs/guides/command.md` is the schema. `python -m tests.runs.test_reference`
writes it again.
"""

import pathlib
import re

from tests import extras

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "guides" / "command.md"
_MARKED = re.compile(r"(<!-- reference: [^>]*-->\n)(.*?)(<!-- end of the reference -->)", re.DOTALL)


def reference():
    """The tables of all sections, in the order of the file."""
    from keras_kd.runs import reading, schema

    lines = []

    def add(name, section):
        lines.append(f"### {name}\n\n{section.__doc__.splitlines()[0]}\n")
        lines.append("| key | default | meaning |\n|---|---|---|")
        inner = []
        for key, field in section.model_fields.items():
            place = f"{name}.{key}" if name != "The whole" else key
            found = reading.section_of((*place.split("."),))
            if found is not None and key != "space":
                inner.append((place, found))
            description = field.description.replace("|", "\\|")
            lines.append(f"| `{key}` | {default(field)} | {description} |")
        lines.append("")
        for each in inner:
            add(*each)

    add("The whole", schema.Config)
    return "\n".join(lines) + "\n"


def default(field):
    if field.is_required():
        return "required"
    if field.default_factory is not None or field.default is None:
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def test_the_page_has_the_reference_of_the_schema():
    extras.require("pydantic")
    found = _MARKED.search(PAGE.read_text(encoding="utf-8"))
    assert found[2] == f"\n{reference()}"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        _MARKED.sub(lambda found: f"{found[1]}\n{reference()}{found[3]}", text), encoding="utf-8"
    )
