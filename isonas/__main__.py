"""`python -m isonas` is the command `isonas`."""

from isonas.cli import main

if __name__ == "__main__":
    main()
