"""`python -m likeness`: the same as the command `likeness`."""

from likeness.commands import run

if __name__ == "__main__":
    run()
