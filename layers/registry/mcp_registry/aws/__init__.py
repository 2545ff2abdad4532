"""AWS: what we stand on: the database, the log, the secret and the queues; one library each."""
