"""Run files: strict typed configs, YAML, overrides, and names that find classes."""

from rankloom.config.base import Config
from rankloom.config.load import apply_overrides, load_config, parse_yaml, read_yaml
from rankloom.config.problems import validation_problems
from rankloom.config.registry import ArchitectureSpec, Choice, ChoiceOf, OneOf, resolve

__all__ = [
    "ArchitectureSpec",
    "Choice",
    "ChoiceOf",
    "Config",
    "OneOf",
    "apply_overrides",
    "load_config",
    "parse_yaml",
    "read_yaml",
    "resolve",
    "validation_problems",
]
