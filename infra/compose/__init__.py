"""What docker-compose.yml is made of: the host's image, its entry, the secrets, what Prometheus and Grafana read."""
