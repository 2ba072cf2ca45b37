"""The service: what answers inside the Bento, and the config of `serve`."""
