"""The version of the package, for whoever needs it without the package."""

VERSION = "0.1.0"
