"""Health: which servers are up, who asks them, and what is kept of the answers."""
