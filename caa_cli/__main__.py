"""`caa`, also as `python -m caa_cli`. Ctrl-C while the command line is still being loaded shows no traceback."""

import sys

from caa_cli.errors import INTERRUPTED


def main() -> None:
    """Entry point of the console script."""
    try:
        from caa_cli.cli import app
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    app.main()


if __name__ == "__main__":
    main()
