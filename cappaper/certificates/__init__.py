"""Certificates, which no attack can contradict, and the truth about small networks."""

from cappaper.certificates.bounds import certified_accuracy, certify
from cappaper.certificates.exact import exact_robustness

__all__ = ["certified_accuracy", "certify", "exact_robustness"]
