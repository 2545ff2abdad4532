"""What the registry's functions share.

Nothing is imported here: each function loads only the modules that it names (a test lists them), because every
import is paid for at a cold start.
"""
