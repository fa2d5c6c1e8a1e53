"""The command line `lightlm`."""
