"""lookalike completion: verbs, recipes and options for the Tab key of a shell."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from lookalike.core.config import flags_of, option


@dataclass(frozen=True)
class Config:
    """Print what makes a shell complete verbs, recipes, options and files.

    bash: `lookalike completion bash > ~/.local/share/bash-completion/completions/lookalike`. zsh: `lookalike completion
    zsh > ~/.lookalike.zsh`, and in ~/.zshrc, behind compinit, `source ~/.lookalike.zsh`. fish: `lookalike completion
    fish > ~/.config/fish/completions/lookalike.fish`.
    """

    shell: Literal["bash", "zsh", "fish"] = option(positional=True, metavar="SHELL")
    """bash, zsh or fish."""


def main(config: Config) -> None:
    """Print the script."""
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[config.shell]())


def _options() -> Iterator[tuple[str, str, list[str]]]:
    """A verb, its recipe or "", and their options."""
    from lookalike.commands import COMMANDS
    from lookalike.commands.recipe_flags import flags_type
    from lookalike.recipes import RECIPES

    for verb in COMMANDS:
        module = import_module(f"lookalike.commands.{verb}")
        if not hasattr(module, "configure"):
            yield verb, "", ["--help", *flags_of(module.Config)]
            continue
        for recipe in RECIPES:
            yield verb, recipe, ["--help", *flags_of(flags_type(RECIPES[recipe], module.Options()))]


def _cases(template: str) -> str:
    """A branch for each verb, or verb and recipe."""
    return "\n".join(
        template.format(words=f'"{verb} {recipe}"' + ("" if recipe else "*"), options=" ".join(options))
        for verb, recipe, options in _options()
    )


def _with_recipes() -> list[str]:
    return sorted({verb for verb, recipe, _ in _options() if recipe})


def _bash() -> str:
    from lookalike.commands import COMMANDS
    from lookalike.recipes import RECIPES

    cases = _cases('    {words}) words="{options}" ;;')
    return f"""_lookalike() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(COMMANDS)} help" -- "$cur")); return
  fi
  if [ "$COMP_CWORD" -eq 2 ]; then
    case "${{COMP_WORDS[1]}}" in
      {"|".join(_with_recipes())}) COMPREPLY=($(compgen -W "{" ".join(RECIPES)}" -- "$cur")); return ;;
      help) COMPREPLY=($(compgen -W "{" ".join(COMMANDS)}" -- "$cur")); return ;;
    esac
  fi
  case "$cur" in -*) ;; *) return ;; esac
  case "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _lookalike lookalike"""


def _zsh() -> str:
    from lookalike.commands import COMMANDS
    from lookalike.recipes import ABOUT

    def described(lines: dict[str, str]) -> str:
        told = (f"{name}:{line}".replace("'", "'\\''") for name, line in lines.items())
        return " ".join(f"'{one}'" for one in told)

    cases = _cases("    {words}) options=({options}) ;;")
    return f"""_lookalike() {{
  local -a verbs recipes options
  verbs=({described(COMMANDS)})
  recipes=({described(ABOUT)})
  if (( CURRENT == 2 )); then _describe verb verbs; return; fi
  if (( CURRENT == 3 )); then
    case "$words[2]" in
      {"|".join(_with_recipes())}) _describe recipe recipes; return ;;
      help) _describe verb verbs; return ;;
    esac
  fi
  if [[ "$PREFIX" != -* ]]; then _files; return; fi
  case "$words[2] $words[3]" in
{cases}
  esac
  compadd -- $options
}}
compdef _lookalike lookalike"""


def _fish() -> str:
    from lookalike.commands import COMMANDS
    from lookalike.recipes import ABOUT

    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    lines = [
        f"complete -c lookalike -n __fish_use_subcommand -f -a {verb} -d {quoted(line)}"
        for verb, line in COMMANDS.items()
    ]
    for verb in _with_recipes():
        lines += [
            f"complete -c lookalike -n '__fish_seen_subcommand_from {verb}' -f -a {recipe} -d {quoted(line)}"
            for recipe, line in ABOUT.items()
        ]
    for verb, recipe, options in _options():
        for name in options:
            where = f"__fish_seen_subcommand_from {verb}" + (
                f"; and __fish_seen_subcommand_from {recipe}" if recipe else ""
            )
            kind = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
            lines.append(f"complete -c lookalike -n '{where}' {kind}")
    return "\n".join(lines)
