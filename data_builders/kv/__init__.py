"""Synthetic data for the key-value arithmetic of section 4.1."""
