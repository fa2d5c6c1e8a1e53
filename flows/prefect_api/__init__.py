"""What connects a flow with Prefect: an API of our own, outages, artifacts."""
