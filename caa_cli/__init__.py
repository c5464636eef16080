"""caa: certification-aware attacks on classifiers defended by randomised smoothing."""

__version__ = "0.1.0"
