"""Several processes, one device each, that work as one: ranks, collectives, sharded optimiser."""
