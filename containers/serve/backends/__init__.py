"""The engines: each generates the tokens of one answer, behind `containers.serve.jobs.Backend`."""
