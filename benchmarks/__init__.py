"""What the project states about speed, measured: `python -m benchmarks`. Nothing deployed or tested imports this."""
