"""Data for code (section 4.3), built from source files."""
