"""``python -m wwwlib``: the command line, which needs the extra `explorer`."""

from importlib import import_module

from wwwlib.registry import require


def main() -> None:
    """Run the command line."""
    require("click", "explorer")
    import_module("wwwlib.explorer.command").main(prog_name="wwwlib")  # not a part of the core


if __name__ == "__main__":
    main()
