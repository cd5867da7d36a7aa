"""`python -m cryptostore`: the command line, in the Python that is named."""

from cryptostore.cli import main

if __name__ == "__main__":
    main()
