"""Paper-against-measured tables, plots and reports of finished runs; needs neither torch nor transformers."""
