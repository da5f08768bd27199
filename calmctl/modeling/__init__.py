"""The heart: frozen bases, bridges between them, and the composed model."""
