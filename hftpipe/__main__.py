"""`python -m hftpipe` is `hftpipe`."""

from hftpipe.cli.main import main

if __name__ == "__main__":
    main()
