"""Frozen bases, the bridges between them, and the composed model."""
