"""The path: minimisers of F(x; λ) = D(x) + λ R(x) as λ changes."""
