"""`python -m lightlm_flows.cli`: the command line, for where its script is not on the path."""

from lightlm_flows.cli.entry import main

if __name__ == "__main__":
    main()
