"""Bases: finding, loading and identifying the models to compose."""
