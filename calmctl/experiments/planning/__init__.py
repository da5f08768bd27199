"""Plans: what an experiment's stages come to before any of them has run."""
