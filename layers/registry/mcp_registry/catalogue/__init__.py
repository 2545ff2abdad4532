"""Catalogue: the servers that registered: what a registration may say, and every statement about them."""
