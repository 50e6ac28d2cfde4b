"""Every Python block of the documentation runs, and its asserts hold."""

import re
from pathlib import Path

import jax
import jaxtyping
import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    """Each block's first line number in the page, and its code."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(1)), m.group(1)) for m in BLOCK.finditer(text)]


PAGES = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if blocks(p)]


@pytest.fixture
def quick():
    """As a reader runs them, without type checks; compiling costs more than running."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page, tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": f"docs_{page.stem.replace('-', '_')}"}
    for line, code in blocks(page):
        # empty lines before it make a traceback name the line of the page
        exec(compile("\n" * line + code, str(page), "exec"), namespace)


def test_every_block_is_found():
    fences = sum(page.read_text(encoding="utf-8").count("```python") for page in PAGES)
    assert fences == sum(len(blocks(page)) for page in PAGES) > 0
