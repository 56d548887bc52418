"""sleap-rtc: train SLEAP models on any machine you can reach, and keep every model."""

__version__ = "0.1.0"
