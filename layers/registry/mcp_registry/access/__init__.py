"""Access: who may call."""
