"""The stages of a run by their names in the ledger, as a person reads them."""

STAGES = {
    "check": "Checking the system",
    "probe": "Measuring this machine and planning",
    "compile": "Measuring this machine and planning",
    "data": "Reading the data set",
    "tokenizer": "Preparing the tokenizer",
    "shards": "Tokenizing to shards",
    "counts": "Counting the text's tokens",
    "champion": "Scoring the champion on this held-out text",
    "training": "Training",
    "final evaluation": "Scoring the held-out text",
    "registration": "Registering the model version",
}
