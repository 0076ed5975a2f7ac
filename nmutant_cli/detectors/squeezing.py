"""Feature squeezing (Xu, Evans and Qi, NDSS 2018, arXiv 1704.01155).

An image is squeezed, and its softmax compared with that of the image as it came. The squeezers
are the paper's for MNIST. For CIFAR10 it adds non-local means (13-3-2), which is left out here.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import median_filter

from nmutant_cli.detectors.contract import Candidate
from nmutant_cli.types import Floats, Images

GREY_BITS, COLOUR_BITS = 1, 5


def reduce_depth(images: Images, bits: int) -> Images:
    """Images in [0, 1] with ``2**bits`` levels in each channel: ``rint(x L) / L``, L the last."""
    last = np.float32(2**bits - 1)
    return np.rint(images * last) / last


def smooth(images: Images) -> Images:
    """The median of 2x2 pixels in each channel, mirrored at the edges.

    A pixel is the lower right one of its four, and their median is the third smallest, as in the
    authors' code and in ART's ``SpatialSmoothing``.
    """
    return median_filter(images, size=(1, 2, 2, 1), mode="reflect")


class Squeezing(Candidate):
    """Largest L1 distance between the softmax of an image and of a squeezed one, in [0, 2]."""

    title = "feature squeezing"
    needs = "scores"
    passes = 3.0

    def score(self, images: Images) -> Floats:
        bits = GREY_BITS if images.shape[-1] == 1 else COLOUR_BITS
        plain = self.view.softmax(images)
        squeezed = (reduce_depth(images, bits), smooth(images))
        return np.max([np.abs(plain - self.view.softmax(x)).sum(axis=1) for x in squeezed], axis=0)
