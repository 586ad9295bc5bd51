"""Reads a configuration: YAML with the lines of its keys, `--set`, and errors that name both."""

import dataclasses
import difflib
import pathlib
import re
from typing import Any, get_args

import pydantic
import yaml

from keras_kd.runs import schema

_NEWER = "pip install --upgrade keras-kd"
# The section whose keys are names of other keys, such as `training.learning_rate`.
_OF_KEYS = ["tune", "space"]
_INDEX = re.compile(r"\d+")


@dataclasses.dataclass
class Source:
    """Where the values of a configuration come from.

    Attributes:
        path: The file, as it is shown.
        lines: `{(key, ...): line}`, from 1.
        options: `{(key, ...): option}` of what `--set` replaced.
    """

    path: str
    lines: dict[tuple, int] = dataclasses.field(default_factory=dict)
    options: dict[tuple, str] = dataclasses.field(default_factory=dict)

    def place(self, keys: tuple) -> str:
        """Where a key is, or the nearest section that holds it."""
        for count in range(len(keys), -1, -1):
            if keys[:count] in self.options:
                return self.options[keys[:count]]
            if keys[:count] in self.lines:
                return f"{self.path}, line {self.lines[keys[:count]]}"
        return self.path


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A configuration that was read.

    Attributes:
        values: The values.
        source: Where they come from.
    """

    values: schema.Config
    source: Source

    def plain(self) -> dict[str, Any]:
        """All values, defaults too, as YAML and JSON hold them."""
        return self.values.model_dump()

    def at(self, key: str) -> Any:
        """The value of a key such as `"training.learning_rate"`, or `None`."""
        value: Any = self.plain()
        for part in _keys(key):
            if isinstance(value, list):
                value = value[part] if isinstance(part, int) and part < len(value) else None
            else:
                value = value.get(part) if isinstance(value, dict) else None
        return value

    def changed(self, values: dict[str, Any]) -> "Configuration":
        """The configuration with other values of some keys.

        Args:
            values: `{"training.learning_rate": 0.01}`.

        Raises:
            ValueError: It then is none.
        """
        plain = self.plain()
        for key, value in values.items():
            *around, last = _keys(key)
            section: Any = plain
            for part in around:
                is_there = isinstance(section, list) and isinstance(part, int)
                inner = section[part] if is_there and part < len(section) else None
                inner = section.get(part) if isinstance(section, dict) else inner
                if inner is None:
                    raise ValueError(f"there is no section {_dotted(around)} in this file. Add it.")
                section = inner
            section[last] = value
        try:
            return Configuration(schema.Config.model_validate(plain), self.source)
        except pydantic.ValidationError as error:
            lines = [_fault(each, self.source) for each in error.errors(include_url=False)]
            raise ValueError("\n".join(dict.fromkeys(lines))) from None

    def error(self, key: str, message: str) -> ValueError:
        """The error of a key such as `"data.images.folder"`."""
        return ValueError(f"{self.place(key)}: {message}")

    def place(self, key: str) -> str:
        """Where a key is, and the key."""
        return f"{self.source.place(_keys(key))}: {key}"


def _keys(key: str) -> tuple:
    parts = key.split(".")
    if parts[:2] == _OF_KEYS:
        parts[2:] = [".".join(parts[2:])] if parts[2:] else []
    return tuple(int(each) if _INDEX.fullmatch(each) else each for each in parts)


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number too."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def read(path: Any, overrides: list[str] | None = None) -> Configuration:
    """Reads and checks a configuration; no model and no data are touched.

    Args:
        path: The YAML file.
        overrides: `"a.b=value"`, what follows `--set`; the values are YAML.

    Raises:
        ValueError: Something is wrong; each line of the message is one fault, with its place and
            what to write.
    """
    text = _text_of(path)
    source = Source(str(path))
    values = _parsed(text, source)
    if not isinstance(values, dict):
        what = "is empty" if values is None else f"holds a {type(values).__name__}"
        raise ValueError(
            f"{path}, line 1: a configuration is a mapping that begins with `version: 1`; this "
            f"file {what}. Remedy: `keras-kd init image` writes one that works."
        )
    for override in overrides or []:
        _override(values, override, source)
    _check_version(values, source)
    try:
        return Configuration(schema.Config.model_validate(values), source)
    except pydantic.ValidationError as error:
        lines = [_fault(each, source) for each in error.errors(include_url=False)]
        raise ValueError("\n".join(dict.fromkeys(lines))) from None


def _text_of(path):
    path = pathlib.Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(
            f"The configuration {str(path)!r} {what}. Name a YAML file; `keras-kd init image` "
            "writes one that works."
        )
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: this is not text in UTF-8. Save the file in that encoding."
        ) from error


def _parsed(text, source):
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return None
        _mark(node, (), source, ())
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ValueError(
            f"{source.path}{line}: this is not YAML: {problem}. Indent with spaces, write `key: "
            "value`, and put texts with : # [ ] {{ }} or tabs in quotes.".replace("{{ }}", "{ }")
        ) from error


def _mark(node, keys, source, around):
    """Notes the line of each key; refuses keys that are there twice, and loops of aliases."""
    if any(node is each for each in around):
        raise ValueError(
            f"{source.path}, line {node.start_mark.line + 1}: an alias (*) names what holds it. "
            "Write the values out."
        )
    around = (*around, node)
    source.lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for i, each in enumerate(node.value):
            _mark(each, (*keys, i), source, around)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner, line = (*keys, str(key.value)), key.start_mark.line + 1
            if inner in source.lines:
                raise ValueError(
                    f"{source.path}, line {line}: {_dotted(inner)} is there twice; it is in line "
                    f"{source.lines[inner]} too. Remove one of them."
                )
            source.lines[inner] = line
            _mark(value, inner, source, around)


def _override(values, override, source):
    place, equals, words = override.partition("=")
    option = f"--set {override}"
    names = place.split(".")
    if not equals or not all(names):
        raise ValueError(
            f"{option}: expected KEY=VALUE, such as --set training.epochs=3. Write the key with "
            "its sections, and an equals sign."
        )
    try:
        value = yaml.load(words, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(
            f"{option}: the value is not YAML: {getattr(error, 'problem', error)}. Put it in "
            "quotes."
        ) from error
    keys: list = []
    at = values
    for i, name in enumerate(names):
        key: Any = name
        if keys == _OF_KEYS:  # below it keys of the file are keys themselves
            key = ".".join(names[i:])
            at[key] = value
            keys.append(key)
            break
        if isinstance(at, list):
            if not _INDEX.fullmatch(name) or int(name) >= len(at):
                raise ValueError(
                    f"{option}: {_dotted(keys)} is a list of {len(at)}; name one by its number "
                    f"from 0. Received: {name!r}"
                )
            key = int(name)
        keys.append(key)
        if i == len(names) - 1:
            at[key] = value
            break
        inner = at[key] if isinstance(at, list) else at.get(key)
        if inner is None:
            inner = at[key] = {}
        if not isinstance(inner, (dict, list)):
            raise ValueError(
                f"{option}: {_dotted(keys)} is {inner!r}, which holds no keys. Set {_dotted(keys)} "
                "itself."
            )
        at = inner
    source.options[tuple(keys)] = option


def _check_version(values, source):
    version, place = values.get("version"), source.place(("version",))
    if "version" not in values:
        raise ValueError(
            f"{source.path}, line 1: version is missing. Add the line `version: {schema.VERSION}`."
        )
    if type(version) is int and version > schema.VERSION:
        raise ValueError(
            f"{place}: version: the file is of version {version}, made for a newer keras_kd; this "
            f"one reads version {schema.VERSION}. Remedy: {_NEWER}."
        )
    if type(version) is not int or version != schema.VERSION:
        raise ValueError(
            f"{place}: version: expected {schema.VERSION}. Received: {version!r}. Write `version: "
            f"{schema.VERSION}`."
        )


# From pydantic's errors to sentences.


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "a text; put it in quotes",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "finite_number": "a finite number",
    "string_too_short": "a text that is not empty",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}
_PATTERNS = {
    "function": "MODULE:FUNCTION, a module as Python imports it and a function in it, such as "
    "own_data:load",
    "name": "letters, digits, points, hyphens and underscores, such as int8",
}


def _fault(error, source):
    keys, kind, context = tuple(error["loc"]), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _said(source.place(keys), keys, _unknown_key(keys))
    if kind == "missing":
        return _said(source.place(keys[:-1]), keys, _missing_key(keys))
    if kind == "literal_error":
        return _said(source.place(keys), keys, _unknown_value(keys, error["input"]))
    if kind == "value_error":
        return _said(source.place(keys), keys, str(context["error"]))
    return _said(source.place(keys), keys, _wrong_value(keys, kind, context, error))


def _said(place, keys, message):
    return f"{place}: {_dotted(keys)}: {message}" if keys else f"{place}: {message}"


def _unknown_key(keys):
    allowed = list(section_of(keys[:-1]).model_fields)
    return f"there is no such key. Allowed: {', '.join(allowed)}.{closest(str(keys[-1]), allowed)}"


def _missing_key(keys):
    field = section_of(keys[:-1]).model_fields[keys[-1]]
    return f"it is missing. Add `{keys[-1]}:`, {field.description}."


def _unknown_value(keys, received):
    allowed = _values_of(section_of(keys[:-1]).model_fields[keys[-1]].annotation)
    listed = ", ".join(map(_shown, allowed))
    near = closest(str(received), [each for each in allowed if isinstance(each, str)])
    return f"expected one of: {listed}. Received: {received!r}.{near}"


def _values_of(annotation):
    """The values of a `Literal`, also inside of an optional."""
    found: list = []
    for each in get_args(annotation):
        found += _values_of(each) if get_args(each) else [None if each is type(None) else each]
    return found


def _shown(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def _wrong_value(keys, kind, context, error):
    received = error["input"]
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        expected = f"a number {words} {context[bound]:g}"
    elif kind == "string_pattern_mismatch":
        expected = _PATTERNS.get(str(keys[-1]), "another text")
    elif kind == "too_short":
        expected = "at least one entry"
    else:
        expected = _EXPECTED.get(kind, error["msg"])
    is_long = isinstance(received, (dict, list))
    shown = (
        f"a {'mapping' if isinstance(received, dict) else 'list'}" if is_long else repr(received)
    )
    return f"expected {expected}. Received: {shown}.{_remedy(keys)}"


def _remedy(keys):
    section = section_of(keys[:-1]) if keys else None
    field = None if section is None else section.model_fields.get(str(keys[-1]))
    if field is None:
        return ""
    words = f" Meaning: {field.description}." if field.description else ""
    if not field.is_required() and field.default_factory is None:
        words += f" Leave it out for {_shown(field.default)}."
    return words


def closest(word: str, choices: list[str]) -> str:
    """`" Did you mean ...?"`, or nothing where none is close."""
    lowered = {each.lower(): each for each in choices}
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.5)
    return f" Did you mean {lowered[found[0]]!r}?" if found else ""


def section_of(keys: tuple) -> Any:
    """The model of the section at some keys, or `None`."""
    section: Any = schema.Config
    for key in keys:
        if isinstance(key, int):
            continue
        field = section.model_fields.get(key) if section is not None else None
        section = None if field is None else _model_in(field.annotation)
    return section


def _model_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, schema.Section):
        return annotation
    for each in get_args(annotation):
        found = _model_in(each)
        if found is not None:
            return found
    return None


def _dotted(keys):
    return ".".join(map(str, keys))
