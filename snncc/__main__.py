"""`python -m snncc`: the command line."""

from snncc.cli import main

if __name__ == "__main__":
    main()
