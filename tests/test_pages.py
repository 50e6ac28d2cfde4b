import pytest

from dasim.pages import fill

PAGE = """# Title

<!-- a -->

old

<!-- end a -->

between

<!-- b -->
<!-- end b -->
after
"""


def test_what_stands_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    fill(page, {"b": ["two", "lines"], "a": ["new"]})
    once = page.read_text()
    assert once == (
        "# Title\n\n<!-- a -->\n\nnew\n\n<!-- end a -->\n\nbetween\n\n"
        "<!-- b -->\n\ntwo\nlines\n\n<!-- end b -->\nafter\n"
    )
    fill(page, {"b": ["two", "lines"], "a": ["new"]})
    assert page.read_text() == once


@pytest.mark.parametrize(
    "text", ["", "<!-- c --><!-- end c -->" * 2, "<!-- end c -->\n<!-- c -->\n"]
)
def test_a_page_without_its_marks_is_left_as_it_was(tmp_path, text):
    page = tmp_path / "README.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"README.md: expected <!-- c --> and <!-- end c --> "):
        fill(page, {"c": ["lines"]})
    assert page.read_text() == text
