"""Builder of the training data for reasoning: the mixes of LLM-Adapters (arXiv 2304.01933), without test questions."""
