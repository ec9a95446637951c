"""Search: propose a genome, train it, log it, again."""

SAMPLER_NAMES = ("ehvi", "tpe", "nsga2", "nsga3", "gp", "random")
