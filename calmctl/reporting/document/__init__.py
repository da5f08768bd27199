"""Report documents: tables and pages, as Markdown, HTML and terminal output."""
