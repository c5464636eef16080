"""`python -m caa_cli` is `caa`, in help and messages too."""

from caa_cli.cli.app import main

if __name__ == "__main__":
    main()
