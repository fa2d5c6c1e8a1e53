"""`python -m lightlm`: the command line, for where no script of that name is on the path."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # `python -m` puts the folder that a person stands in first on the search path; `python -P -m
    # lightlm` does not.
    if not sys.flags.safe_path and Path(sys.path[0]) == Path.cwd():
        del sys.path[0]
    from lightlm_flows.cli.entry import main

    sys.argv[0] = "lightlm"
    main()
