"""Programs that tests need beside the package."""

import os
import shutil

import pytest


def needed(*programs: str) -> str:
    """The path of the first that is there. Without any the test is skipped; it fails where HFTPIPE_TEST_ALL is set."""
    for program in programs:
        if (found := shutil.which(program)) is not None:
            return found
    told = f"{programs[0]} is not installed"
    if os.environ.get("HFTPIPE_TEST_ALL"):
        pytest.fail(told)
    pytest.skip(told)
