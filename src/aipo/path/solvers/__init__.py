"""Inner solvers: they minimise one energy per image and see only values and gradients."""
