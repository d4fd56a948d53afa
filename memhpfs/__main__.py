"""`python -m memhpfs` is the command `memhpfs`."""

from memhpfs.cli.main import main

if __name__ == "__main__":
    main()
