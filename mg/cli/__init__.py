"""Command lines: configs from flags and YAML files, their help, and how a command runs."""

from mg.cli.parser import config_of_mapping, is_setting, parse_config
from mg.cli.run import run_main
from mg.cli.saved_config import config_to_yaml, plain_settings, save_config

__all__ = [
    "config_of_mapping",
    "config_to_yaml",
    "is_setting",
    "parse_config",
    "plain_settings",
    "run_main",
    "save_config",
]
