"""`kitemesh completion`: the script with which a shell completes verbs, options and files."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SHELLS: Final = ("bash", "zsh", "fish")

DESCRIPTION = """\
Print a script with which a shell completes the command's verbs, options and files. It belongs to this release: print it
again after an upgrade.

examples:
  eval "$(kitemesh completion bash)"                                          in ~/.bashrc
  kitemesh completion zsh > ~/.zfunc/_kitemesh                                with ~/.zfunc in fpath
  kitemesh completion fish > ~/.config/fish/completions/kitemesh.fish
"""


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = verbs.add_parser(
        "completion",
        help="print what a shell completes this command with",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Be the verb; `arguments.command` is the whole command."""
    # Only this verb needs it.
    import shtab  # noqa: PLC0415  see above

    for action in _actions(arguments.command):
        if action.type is Path:
            is_folder = action.metavar == "DIR"
            # The library looks for the attribute, which argparse does not know.
            setattr(action, "complete", shtab.DIRECTORY if is_folder else shtab.FILE)  # noqa: B010  see above
    print(shtab.complete(arguments.command, arguments.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001  argparse has no other way to list them
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001  as above
            for each in action.choices.values():
                yield from _actions(each)
