-- Beside `prefect`, which the image of PostgreSQL makes: MLflow's runs and registry, and MLflow's users.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_users;
