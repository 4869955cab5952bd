"""Bytes in from somewhere: files, pipes, and made-up ones, as blocks of complete lines with marks to resume from."""

from hftpipe.source.file import FileSource
from hftpipe.source.framing import Block, LineFramer, Mark
from hftpipe.source.pipe import PipeSource
from hftpipe.source.stream import Source

__all__ = ["Block", "FileSource", "LineFramer", "Mark", "PipeSource", "Source"]
