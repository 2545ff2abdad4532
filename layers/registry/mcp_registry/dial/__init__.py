"""Dial: asking strangers: which URLs, names and addresses may be dialled, and one exchange with who answers."""
