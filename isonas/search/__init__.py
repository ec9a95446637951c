"""Search: propose a genome, train it, log it, again."""

SAMPLER_NAMES = ("tpe", "nsga2", "random")
