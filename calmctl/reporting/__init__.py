"""Reports of complete runs: tables beside the paper's figures, and plots; imports neither torch nor transformers."""
