"""Weight files: reading, writing, names, inflation. numpy only, no MindSpore."""
