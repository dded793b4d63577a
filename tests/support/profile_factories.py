"""Head profiles of a loaded model with random scores, for tests and benchmarks of what is done with scores.

Owns the draws. Measures nothing.
"""

import numpy as np

from calibrate.models.loading import LoadedModel
from profiles.head_profile import DatasetRef, HeadProfile, ScoreFormula
from profiles.ranking import Ranking


def profile_of(loaded: LoadedModel, seed: int = 0, *, falling: bool = False) -> HeadProfile:
    """Scores and mean outputs drawn by seed; nothing is protected by them, nothing was measured.

    Parameters
    ----------
    falling
        Scores that fall with the layer, as real ones do.
    """
    shape = (loaded.geometry.layers, loaded.geometry.query_heads)
    drawn = np.random.default_rng(seed).random(shape)
    scores = (drawn / (1 + np.arange(shape[0])[:, None]) if falling else drawn).tolist()
    return HeadProfile(
        model=loaded.ref,
        geometry=loaded.geometry,
        dataset=DatasetRef(name="none", digest=None, split=None, settings={}),
        samples=1,
        samples_skipped=0,
        samples_with_box=0,
        seed=0,
        formula=ScoreFormula(name="layer*weight*concentration", layer_function="none", epsilon=1e-12),
        settings={},
        versions={},
        mean_output=np.random.default_rng(seed).normal(size=(*shape, loaded.geometry.head_size)).astype(np.float32),
        rankings=dict.fromkeys(("image_weight", "concentration", "score"), Ranking.of(scores)),
    )
