"""Training: the compiled step, the loop around it, and what it writes."""
