"""Weight files: reading, writing, names, inflation. numpy only, no MindSpore."""

from mg.weights.checkpoint_file import load_state_dict_from_file, save_state_dict_to_file
from mg.weights.inspection import inspect_checkpoint

__all__ = ["inspect_checkpoint", "load_state_dict_from_file", "save_state_dict_to_file"]
