"""What every other room stands on: errors, units, files. Imports nothing from the rest of labcore."""
