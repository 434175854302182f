"""``python -m commonweight`` is the command ``commonweight``."""

from commonweight.cli.main import main

if __name__ == "__main__":
    main()
