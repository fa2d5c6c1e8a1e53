"""One run, from the data set to the registered version, without Prefect and without a
command line.
"""
