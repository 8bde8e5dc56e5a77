"""Likelihood and prior in, picture out."""
