"""The version of the package, importable without the rest of it."""

VERSION = "0.1.0"
