"""AWS: what we stand on: the database, the log, the secret and the queues; one library each."""

import logging

# Lambda sets this level for all loggers at once (LogLevel), and at DEBUG libraries log what they sign and read:
# secrets, tokens, messages. What stands in the log is chosen in `observability`, whose logger has a level of its own.
logging.getLogger().setLevel(logging.WARNING)
