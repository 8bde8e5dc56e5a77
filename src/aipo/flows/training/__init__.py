"""Fitting a flow to pictures: the loop, the loss, the optimiser, the pictures and several processes."""
