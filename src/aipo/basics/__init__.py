"""Conventions, errors, derivatives and picture quality: what every room uses."""
