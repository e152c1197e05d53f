"""Claims of the papers, tried at the scale of a CPU, several seeds each."""
