"""The work. One folder per stage; no Prefect, MLflow or Docker in here."""
