"""Names that a user can choose from. Free of imports, so that the command line starts quickly."""

from __future__ import annotations

LOG_RATIO, GUMBEL = SURROGATES = ("log-ratio", "gumbel")
STAGED, FIXED = SAMPLE_SCHEDULES = ("staged", "fixed")
# Where each round of C-W begins.
CLEAN_IMAGE, MID_GREY = CW_STARTS = ("image", "grey")
RADIAL, TANGENTIAL = REFINEMENTS = ("radial", "tangential")
# What follows the search: the boundary line search, or nothing.
LINE_SEARCH, NO_LINE_SEARCH = FINISHES = ("ray", "none")
# An exact sequential test of two classes named beforehand, or the paper's Eq. attack_criteria.
EXACT, INTERVALS = VERIFICATIONS = ("exact", "intervals")
# Where the search's gradients come from: the target, another checkpoint (surrogate-model=FILE), or votes alone.
MODEL, SURROGATE_MODEL, VOTES = GRADIENTS = ("model", "surrogate-model", "votes")
# What an ensemble makes of its members, in words.
LOGITS, ENSEMBLE_VOTES = "logits", "votes"
ENSEMBLES = {
    LOGITS: "the mean of the logits",
    "softmax": "the mean of the softmax",
    ENSEMBLE_VOTES: "the majority of the decisions",
}
# tf32 is float32 with the products on a GPU rounded to TF32 (`runtime.device.numeric_mode`).
DTYPES = ("float32", "tf32", "bfloat16", "float16", "float64")
SPLITS = ("test", "train")
# How images are resized, as Pillow names it.
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
TABLE_FORMATS = ("table", "markdown", "latex", "csv", "json")

# The default number of images of the demo.
DEMO_LIMIT = 20

# ResNets as torchvision has them (7×7 stem, max-pooling), with a 3×3 stem before the max-pooling (the paper's for
# ImageNet), with a 3×3 stem and none (for 32×32 images), and the networks that were made for CIFAR-10: thin ResNets
# (-a: with shortcuts that have no weights), wide ones, DenseNet and VGG.
ARCHITECTURES = (
    "small-cnn",
    "lenet",
    "resnet18",
    "resnet50",
    "resnet18-3x3",
    "resnet50-3x3",
    "resnet18-cifar",
    "resnet50-cifar",
    "resnet20",
    "resnet110",
    "resnet20-a",
    "wrn-28-10",
    "wrn-40-2",
    "densenet-40-12",
    "vgg16-cifar",
)

# Normalisations by name: (mean, std), one value for every channel or one a channel, of images in [0, 1].
_CIFAR10_MEAN, _IMAGENET_MEAN = (0.4914, 0.4822, 0.4465), (0.485, 0.456, 0.406)
NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0,), (1.0,)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "cifar10": (_CIFAR10_MEAN, (0.2023, 0.1994, 0.2010)),
    "cifar10-mean-only": (_CIFAR10_MEAN, (1.0, 1.0, 1.0)),
    "cifar10-paper": (_CIFAR10_MEAN, (0.247, 0.243, 0.261)),
    "imagenet": (_IMAGENET_MEAN, (0.229, 0.224, 0.225)),
    "imagenet-mean-only": (_IMAGENET_MEAN, (1.0, 1.0, 1.0)),
}
SCHEDULES = ("constant", "step", "cosine")
OPTIMIZERS = ("adam", "sgd")
INNER_ATTACKS = ("pgd", "ddn")
# What a denoiser is trained for: the classifier's own prediction of the clean image, the label, or the clean image.
STABILITY, CLASSIFICATION, MSE = OBJECTIVES = ("stability", "classification", "mse")
DENOISER_ARCHITECTURES = ("dncnn", "ffdnet")
AUGMENTATIONS = ("auto", "none", "flip", "crop-flip", "resized-crop-flip")
TRAINING_DTYPES = ("float32", "bfloat16", "float16")
