"""Bases: finding, loading and recognising the models that are composed."""
