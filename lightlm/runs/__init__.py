"""One run, from data set to registered version, without Prefect and without a command line."""
