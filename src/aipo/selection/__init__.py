"""Which weight, or which mixture of the path, without the true picture; and the defaults of a path."""
