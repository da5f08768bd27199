"""Presets of calmctl, shipped as the package `calmctl.conf`; an editable install finds them by this file."""
