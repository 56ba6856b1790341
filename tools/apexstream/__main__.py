"""`python -m apexstream`: the same as the command `apexstream`."""

from apexstream.cli import run

if __name__ == "__main__":
    run()
