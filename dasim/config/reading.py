"""Reading YAML configs, and errors that name the setting and the remedy."""

import difflib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from dasim.config.runs import Sourced
from dasim.config.section import ConfigError, Section


def configs_folder() -> Path:
    """The shipped configs: beside the installed package, or in the repository."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(name: str) -> Path:
    """A path as given, or a shipped config by that path or name."""
    given = Path(name)
    if given.is_file():
        return given
    folder = configs_folder()
    shipped = sorted(folder.rglob("*.yaml"))
    for path in shipped:
        relative = path.relative_to(folder)
        if name in (path.stem, str(relative), f"configs/{relative}", str(relative.with_suffix(""))):
            return path
    near = difflib.get_close_matches(given.stem, [p.stem for p in shipped], 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{name}: there is no such file and no shipped config of that name{hint}")


def read(path: Path, schema: type[Sourced], overrides: list[str] | tuple[str, ...] = ()) -> Any:
    """A validated config from a YAML file and `a.b=c` overrides.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown, of a wrong type or
            impossible; names its path, what was expected, and the nearest valid name.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(content).__name__}")
    for override in overrides:
        _set(content, override)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = [_explain(e, schema) for e in error.errors()]
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines)) from None


def _set(content: Any, override: str):
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"--set {override}: expected a.b=value")
    *parents, last = path.split(".")
    for part in parents:
        if isinstance(content, list) and part.isdigit() and int(part) < len(content):
            content = content[int(part)]
        elif isinstance(content, dict):
            content = content.setdefault(part, {})
        else:
            raise ConfigError(f"--set {override}: there is no {part!r} in {path}")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: {value!r} is not a YAML value") from None
    if isinstance(content, list) and last.isdigit() and int(last) < len(content):
        content[int(last)] = parsed
    elif isinstance(content, dict):
        content[last] = parsed
    else:
        raise ConfigError(f"--set {override}: there is no {last!r} to set in {path}")


def _sections(annotation) -> list[type[Section]]:
    """The sections that an annotation can hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _explain(error, schema: type[Section]) -> str:
    location = error["loc"]
    candidates, shown = [schema], []
    for i, part in enumerate(location):
        tagged = [c for c in candidates if _tag(c) == part]
        if tagged and i < len(location):
            candidates = tagged  # the name of a union's member is no key of the file
            continue
        if isinstance(part, str) and part.startswith("<"):
            continue  # nor is a discriminator's tag
        shown.append(f"[{part}]" if isinstance(part, int) else f".{part}")
        if isinstance(part, str) and i < len(location) - 1:
            fields = [c.model_fields[part] for c in candidates if part in c.model_fields]
            candidates = [s for field in fields for s in _sections(field.annotation)]
    path = "".join(shown).lstrip(".") or "the file"
    if error["type"] == "extra_forbidden":
        valid = sorted({name for c in candidates for name in c.model_fields})
        near = difflib.get_close_matches(str(location[-1]), valid, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{path}: unknown key; {hint}valid here: {', '.join(valid)}"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("union_tag_invalid", "literal_error"):
        expected = error["ctx"].get("expected_tags") or error["ctx"]["expected"]
        found = error["ctx"].get("tag", error["input"])
        words = [w.strip(" '") for w in expected.replace(" or ", ",").split(",")]
        near = difflib.get_close_matches(str(found), words, 1, 0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        where = f"{path}.kind" if error["type"] == "union_tag_invalid" else path
        return f"{where}: {found!r} is not one of {', '.join(words)}{hint}"
    if error["type"] == "missing":
        return f"{path}: is missing"
    if error["type"] == "union_tag_not_found":
        return f"{path}.kind: is missing"
    if error["type"] == "value_error":
        return message if path == "the file" else f"{path}: {message}"
    return f"{path}: {message}, found {error['input']!r}"


def _tag(section: type[Section]) -> str | None:
    kind = section.model_fields.get("kind")
    values = get_args(kind.annotation) if kind is not None else ()
    return values[0] if len(values) == 1 else None
