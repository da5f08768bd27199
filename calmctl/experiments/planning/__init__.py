"""Plans: estimates of an experiment's FLOPs, hours, memory and disk before any stage runs."""
