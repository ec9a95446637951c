"""Which image side a genome reads in proxy training."""

from __future__ import annotations


def proxy_input(internal_resolution: int, source_side: int, deployment_side: int) -> int:
    """The side in pixels of the whole, area-downsampled image.

    The largest multiple of the internal resolution that is neither above the source's side nor above
    the deployment input; or a multiple up to a quarter smaller, if from there alone the stem can be
    inflated by a whole factor to the deployment input (7 reads 56 of 64 pixels, not 63, for 112 or
    224). Where the internal resolution itself is above the source or the deployment input: that side,
    which the network upsamples as it does at deployment (Table 4's inputs below r).
    """
    largest = min(source_side, deployment_side)
    if internal_resolution > largest:
        return largest
    block = largest // internal_resolution
    deployed = max(deployment_side // internal_resolution, 1)
    whole = max(divisor for divisor in range(1, block + 1) if deployed % divisor == 0)
    return internal_resolution * (whole if 4 * whole >= 3 * block else block)
