"""A corpus built by many processes on one machine or several: files, tasks, stages."""
