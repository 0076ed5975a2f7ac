"""Mutations, the compiled graph that labels them, and kappa(x) (the paper's section 4)."""
