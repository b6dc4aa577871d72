"""Evidence: recorded runs and their schema, measured ceilings, and the definitions of the serving metrics."""
