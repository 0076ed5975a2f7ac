"""Mutations, the compiled graph that labels them, and the sensitivity kappa(x) (section 4 of the paper)."""
