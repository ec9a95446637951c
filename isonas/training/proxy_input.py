"""Which image side a genome reads in proxy training."""

from __future__ import annotations


def proxy_input(internal_resolution: int, source_side: int, deployment_side: int) -> int:
    """The side in pixels of the whole, area-downsampled image.

    The largest multiple of the internal resolution that is neither above the source's side nor above
    the deployment input; where the internal resolution itself is above one of them, that side, which
    the network upsamples to its internal resolution as it does at deployment (Table 4's inputs below
    r).
    """
    largest = min(source_side, deployment_side)
    return largest // internal_resolution * internal_resolution or largest
