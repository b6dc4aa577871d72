"""Quantization: methods that take weights and calibration statistics, and the evaluation that judges them."""
