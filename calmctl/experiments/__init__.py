"""Experiments: the sections of the paper (kv, ntl, code), and the engine that they share."""
