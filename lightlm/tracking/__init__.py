"""What is told to MLflow: the run's record, the process that ships it, the model registry."""
