"""The program ``swg-fast``: takes charge of Ctrl-C before anything large is imported."""

from __future__ import annotations

from swg_fast.common.interrupts import install


def main() -> None:
    """Runs the command line."""
    install()
    from swg_fast.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
