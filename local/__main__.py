"""`python -m local`: the registry on one machine. This file only makes sure that the rest can be imported."""

import signal
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the one line that has to run on an older one
    sys.exit(f"The registry needs Python 3.11 or newer, not {sys.version.split()[0]}. Try: make run PYTHON=python3.13")

# SIGTERM is a Ctrl-C from here on: what has been started by then is stopped in good order.
signal.signal(signal.SIGTERM, signal.default_int_handler)

try:
    from local.run import main
except ModuleNotFoundError as missing:
    sys.exit(f"The package {missing.name} is not installed. `make run` installs what is missing.")
except KeyboardInterrupt:
    sys.exit(0)

sys.exit(main())
