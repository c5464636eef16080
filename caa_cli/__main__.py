"""`python -m caa_cli` is `caa`."""

from caa_cli.cli.app import main

if __name__ == "__main__":
    main()
