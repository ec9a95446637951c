"""One block's convolutions used in every layer, each use with batch norms of its own.

Source: section 8 of the paper, by which layers can potentially share weights. A genome's `shared` uses one
block, batch norm included; here only weights are shared, so the uses may differ in scale, offset and
statistics.
"""

from __future__ import annotations

from isonas.networks.isometric import Block, IsometricNet


def share_convolutions(network: IsometricNet) -> None:
    """Let all blocks use the first block's convolutions (and SE), in place; batch norms stay apart.

    Removes (l − 1)(2Ec + q²E + 2Es + s + E) parameters (the last two terms only with SE) and no MAdds.
    """
    first = network.blocks[0]
    assert isinstance(first, Block)
    for block in network.blocks:
        assert isinstance(block, Block)
        block.expand.conv = first.expand.conv
        block.depthwise.conv = first.depthwise.conv
        block.project.conv = first.project.conv
        block.se = first.se
