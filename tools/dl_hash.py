"""dl-hash - add the content hash to each file record

Usage:
  dl-hash [options] [--] [<path>...]

Options:
  --root=<dir>  Folder that relative paths start from.
"""
from libdeadline import command
from libdeadline.records import File
def stage(args, run):
    for row in run.input(File):
        yield row
def main() -> int:
    return command.run(__doc__, stage)
