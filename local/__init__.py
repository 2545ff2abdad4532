"""The local run: template.yaml played on one machine. Never deployed, imported by nothing that is."""
