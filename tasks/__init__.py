"""One sentence of the story each: a Prefect task that turns typed artifacts into one stage run."""
