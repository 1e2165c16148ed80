"""Video VAEs of all families behind one interface. Importing this package loads no MindSpore."""
