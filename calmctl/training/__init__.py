"""Training: examples to batches, batches to a trained model, with resume."""
