"""Experiments: those of the paper (kv, ntl, code), and the code that runs them."""
