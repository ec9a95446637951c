"""Search: propose a genome, train it, log it, again."""
