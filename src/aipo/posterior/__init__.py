"""The posterior: chains, their means and spreads, and Laplace's approximation."""
