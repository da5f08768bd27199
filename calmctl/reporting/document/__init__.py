"""Reports as documents: tables, pages of Markdown and HTML, the terminal."""
