"""A script, run by its path and not imported: it starts a program and ends it, with all that it started, when whoever
started this is gone. A tap that waits for its source would otherwise stay when the platform's process is killed.

`python guard.py DESCRIPTOR PROGRAM ARGUMENT...`: the descriptor is the reading end of a pipe whose other end the
starter holds. It ends as the program does: with its code, or by its signal.
"""

import os
import signal
import subprocess
import sys
import threading
import time

SECONDS = 5
"""How long the program may take to end before it is killed."""

NOT_STARTED = 126


def main() -> None:
    """Run the program that the arguments name."""
    pipe, command = int(sys.argv[1]), sys.argv[2:]
    try:
        program = subprocess.Popen(command)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)  # noqa: T201 - a script
        sys.stderr.flush()
        os._exit(NOT_STARTED)
    # What ends the program is meant for the whole group; this waits for it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def watch() -> None:
        while os.read(pipe, 1):
            pass
        os.killpg(0, signal.SIGTERM)
        time.sleep(SECONDS)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    code = program.wait()
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
