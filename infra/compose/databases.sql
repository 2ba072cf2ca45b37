-- Run once, when PostgreSQL's volume is new; the database `prefect` is made by the image itself.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
