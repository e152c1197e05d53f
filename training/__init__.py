"""Training: makes encoders from data without labels."""
