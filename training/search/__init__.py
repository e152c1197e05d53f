"""What SSNAS needs beyond a method: supernets, derivation, pictures, label-free scores, the whole pipeline."""
