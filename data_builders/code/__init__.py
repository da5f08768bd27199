"""Code, section 4.3: data from source files."""
