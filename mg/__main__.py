"""`python -m mg` is the command `mg`."""

from mg.commands import main

if __name__ == "__main__":
    main()
