"""Exercise sets, one module a lab: `lab00`, `lab01`, … Importing one registers its exercises."""
