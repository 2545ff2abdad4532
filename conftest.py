"""Makes the fixtures known that tests/ and client/tests/ have in common, so that each is there once in a process."""

pytest_plugins = ["tests.shared"]
