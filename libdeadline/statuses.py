"""Exit statuses: small numbers are a tool's answers, troubles are those of sysexits.h.

Source: design, the process contract; sysexits(3).
"""

OK = 0
USAGE = 64  # the command was typed wrongly
DATA = 65  # input was read, and is wrong: malformed, truncated, refused by a check
NO_INPUT = 66  # a named file, folder or resource does not exist or can't be read
UNAVAILABLE = 69  # a service can't be reached, or refuses for now
SOFTWARE = 70  # our bug
CANNOT_CREATE = 73  # an output can't be created
IO = 74  # reading or writing failed midway
TRY_AGAIN = 75  # a passing failure: the same command may succeed later
NOT_ALLOWED = 77  # missing or insufficient permission, or no credentials
CONFIGURATION = 78  # a setting or a profile is wrong or missing
SIGNAL = 128  # plus the number of the signal that ended the tool
