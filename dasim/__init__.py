"""dasim: data assimilation with diffusion priors, in JAX."""
