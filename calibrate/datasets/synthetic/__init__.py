"""The synthetic world that the demo model lives in: PointQA in miniature, made on the spot from seeds.

Owns scenes, pictures and questions. Knows numpy and Pillow; does not know torch, models or tokens.
"""

from calibrate.datasets.synthetic.world import FAMILIES, REPLIES, make_sample, samples

__all__ = ["FAMILIES", "REPLIES", "make_sample", "samples"]
