"""Small configs that a careless reader spends gigabytes, minutes or a traceback on."""

from pathlib import Path

from fault_experiments.apart import MAX_MEGABYTES, MAX_SECONDS, fault_of, run_apart
from fault_experiments.experiment import Experiment, Trials

__all__ = ["EXPERIMENTS", "bombs"]

IMPORTS = """
from mg.json_file import read_json
from mg.yaml_file import read_yaml
"""


def bombs() -> dict[str, str]:
    """Return {file name: content}; none of them may be read."""
    levels = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    levels += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    merged = ["m0: &m0 {x: 1}"]
    merged += [f"m{i}: &m{i} {{<<: [{','.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 9)]
    return {
        "aliases.yaml": "\n".join(levels),
        "merges.yaml": "\n".join(merged),
        "anchor_in_itself.yaml": "a: &a [*a]",
        "deep_lists.yaml": "[" * 200_000,
        "deep_blocks.yaml": "- " * 100_000 + "a",
        "many_values.yaml": "[" + "1," * 100_000 + "]",
        "sixty_by_sixty.yaml": "a: 1" + ":59" * 80_000,
        "digits.yaml": "a: " + "9" * 200_000,
        "hexadecimal.yaml": "a: 0x" + "f" * 200_000,
        "large.yaml": "a" * (1 << 20),
        "deep_lists.json": "[" * 900_000,
        "deep_objects.json": '{"a":' * 100_000,
        "digits.json": "9" * 900_000,
        "repeated_keys.json": '{"a": 1, "a": 2}',
        "infinity.json": '{"a": 1e999}',
        "large.json": "[" + "0," * (1 << 20) + "0]",
    }


def read_bombs(folder: Path, num_trials: int | None) -> Trials:
    """Read each; yield which was read, or took too much."""
    for name, content in list(bombs().items())[:num_trials]:
        path = folder / name
        path.write_text(content)
        function = "read_json" if path.suffix == ".json" else "read_yaml"
        yield fault_of(name, name, run_apart(IMPORTS, f"{function}(path)", path))


EXPERIMENTS = {
    "config_bombs": Experiment(
        "A config or index (YAML, JSON) nested without end, full of aliases or digits, with keys "
        f"twice: refused in one line, in less than {MAX_SECONDS:g} s and {MAX_MEGABYTES:g} MB",
        None,
        read_bombs,
    ),
}
