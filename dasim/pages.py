"""Pages of results, whose tables the scripts that measure write anew."""

from pathlib import Path


def fill(page: Path, parts: dict[str, list[str]]):
    """Replace the lines between the marks `<!-- name -->` and `<!-- end name -->` of each part.

    Raises:
        ValueError: a mark is missing or there twice; the page is then left as it was.
    """
    text = page.read_text()
    for name, lines in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        if (text.count(begin), text.count(end)) != (1, 1) or text.index(begin) > text.index(end):
            raise ValueError(f"{page}: expected {begin} and {end} after it, once each")
        head, rest = text.split(begin)
        text = "\n".join([head + begin, "", *lines, "", end + rest.split(end)[1]])
    page.write_text(text)
