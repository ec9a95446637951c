"""The paper as software: each table and figure of Sandler et al. (2019) by its name.

"Non-discriminative data or weak model? On the relative importance of data and model resolution". One
file an id, imported when it is asked for; it holds an `EXPERIMENT`.
"""

from __future__ import annotations

EXPERIMENTS = {
    "table4": "input against internal resolution, isometric networks",
}
"""What can be run, by id, in the paper's order."""
