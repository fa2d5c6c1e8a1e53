"""What `lightlm up` runs: servers, worker, deployments, schedules."""
