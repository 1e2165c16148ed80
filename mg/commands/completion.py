"""Print the completion of `mg` for a shell.

eval "$(mg completion bash)"      # in ~/.bashrc
eval "$(mg completion zsh)"       # in ~/.zshrc
"""

import argparse

from mg.commands import COMMANDS

BASH = """\
_mg() {{
    local word=${{COMP_WORDS[COMP_CWORD]}}
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{names}" -- "$word"))
    elif [[ $word == --* && $word != *=* ]]; then
        local help=$(mg "${{COMP_WORDS[1]}}" --help-all 2>/dev/null)
        help=${{help:-$(mg "${{COMP_WORDS[1]}}" --help)}}
        COMPREPLY=($(compgen -W "$(grep -oE -- '--[a-z0-9_.-]+' <<< "$help")" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _mg mg
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + BASH


def main() -> None:
    """Print the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    shell = parser.parse_args().shell
    print((BASH if shell == "bash" else ZSH).format(names=" ".join(COMMANDS)), end="")
