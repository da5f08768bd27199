"""The key-value arithmetic of section 4.1: data that are made."""
