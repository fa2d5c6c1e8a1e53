"""MLflow: the run's record, the process that ships it, and the model registry."""
