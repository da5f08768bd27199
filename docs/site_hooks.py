"""What `make docs` changes: the README is the first page, and pages link to it there."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add the README as the first page; its links to docs/ and to files of the repository become the site's."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=_without_links_outside(text, files)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Link to the first page where a page links to the README; other files of the repository are not on the site."""
    return _without_links_outside(markdown.replace("](../README.md", "](index.md"), files)


def _without_links_outside(markdown: str, files: Files) -> str:
    """Replace links to files and folders that are not on the site by their texts."""

    def shown(link: re.Match[str]) -> str:
        target = link[2].partition("#")[0]
        is_there = not target or target.startswith("http") or files.get_file_from_path(target) is not None
        return link[0] if is_there else link[1]

    return re.sub(r"(?<!!)\[([^\]\[]*)\]\(([^)\s]*)\)", shown, markdown)
